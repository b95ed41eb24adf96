// RUN: lostwax opt --verify-diagnostics --passes=localise %s | filecheck %s

// CHECK: localise: the module has no lostwax.mesh; run shard first
func.func @gated(%x: !lostwax.tensor<[T, 8], bf16>, %gate: !lostwax.tensor<[10, 8], bf16> {lostwax.weight = "gate"}, %up: !lostwax.tensor<[10, 8], bf16> {lostwax.weight = "up"}, %down: !lostwax.tensor<[8, 10], bf16> {lostwax.weight = "down"}) -> !lostwax.tensor<[T, 8], bf16> {
  %g = "quant.linear"(%x, %gate) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[10, 8], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %u = "quant.linear"(%x, %up) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[10, 8], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %h = "core.silu_mul"(%g, %u) : (!lostwax.tensor<[T, 10], bf16>, !lostwax.tensor<[T, 10], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %y = "quant.linear"(%h, %down) : (!lostwax.tensor<[T, 10], bf16>, !lostwax.tensor<[8, 10], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: localise: the module is one rank's already; localise it once
builtin.module attributes {lostwax.mesh = {tp = 2 : i64}, lostwax.local} {
}

// -----
// Whole values cannot be taken as slices: nothing here cuts them.
// CHECK: localise: core.cast takes an operand as #dist.split<"tp", 1>, which ranks hold as unit; run shard on the module as it is
builtin.module attributes {lostwax.mesh = {tp = 2 : i64}} {
  func.func @f(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32> {
    %y = "core.cast"(%x) {lostwax.shard = {operands = [#dist.split<"tp", 1>], results = [#dist.split<"tp", 1>]}} : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
    func.return %y : !lostwax.tensor<[T, 8], f32>
  }
}
