// RUN: lostwax opt --verify-diagnostics --passes=assign-formats{dtype=bf16} %s | filecheck %s

// CHECK: assign-formats: weight 'up.weight' of @f is stored as 'int4'; known are bf16, f32 and block-scaled fp8
func.func @f(%w: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "up.weight", lostwax.stored = "int4"}) {
  func.return
}

// -----
// CHECK: assign-formats: weight 'up.weight' of @f is stored as 'f8E4M3FN'; known are
func.func @f(%w: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "up.weight", lostwax.stored = "f8E4M3FN"}) {
  func.return
}

// -----
// Elementwise ops read no block scales, so a module that would need it does not pass.
// CHECK: after assign-formats: @f: core.silu_mul: operand 'gate' at position 0 does not verify:
// CHECK-NEXT: a tensor without block scales is needed
func.func @f(%w: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "up.weight", lostwax.stored = "f8E4M3FN:128x128"}) -> !lostwax.tensor<[4, 8], bf16> {
  %y = "core.silu_mul"(%w, %w) : (!lostwax.tensor<[4, 8], bf16>, !lostwax.tensor<[4, 8], bf16>) -> !lostwax.tensor<[4, 8], bf16>
  func.return %y : !lostwax.tensor<[4, 8], bf16>
}
