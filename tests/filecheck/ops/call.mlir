// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// A call binds weights by prefix and caches by layer; what it passes and takes must fit the callee.

// CHECK: %y = core.call @norm(%x) layer 3 : i64 weights "model.layers.3." : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
func.func @norm(%x: !lostwax.tensor<[T, 8], bf16>, %w: !lostwax.tensor<[8], bf16> {lostwax.weight = "norm.weight"}) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.rms_norm"(%x, %w) <{eps = 1.0e-06 : f64}> : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}
func.func @step(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = core.call @norm(%x) layer 3 weights "model.layers.3." : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: @step: core.call: no function @missing
func.func @step(%x: !lostwax.tensor<[T, 8], bf16>) {
  %y = core.call @missing(%x) layer 3 weights "" : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return
}

// -----
// CHECK: @step: core.call: @keep wants (!lostwax.tensor<[T, 8], bf16>), got (!lostwax.tensor<[B, 8], bf16>)
func.func @keep(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  func.return %x : !lostwax.tensor<[T, 8], bf16>
}
func.func @step(%x: !lostwax.tensor<[B, 8], bf16>) {
  %y = core.call @keep(%x) layer 0 weights "" : (!lostwax.tensor<[B, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return
}

// -----
// CHECK: @step: core.call: @keep wants (!lostwax.tensor<[T, 8], bf16>), got ()
func.func @keep(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  func.return %x : !lostwax.tensor<[T, 8], bf16>
}
func.func @step() {
  %y = core.call @keep() layer 0 weights "" : () -> !lostwax.tensor<[T, 8], bf16>
  func.return
}

// -----
// CHECK: @step: core.call: @keep gives (!lostwax.tensor<[T, 8], bf16>)
func.func @keep(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  func.return %x : !lostwax.tensor<[T, 8], bf16>
}
func.func @step(%x: !lostwax.tensor<[T, 8], bf16>) {
  %y = core.call @keep(%x) layer 0 weights "" : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
  func.return
}
