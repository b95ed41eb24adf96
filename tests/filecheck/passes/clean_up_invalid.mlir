// RUN: lostwax opt --verify-diagnostics --passes=clean-up %s | filecheck %s

// A dead op is verified before it may be removed.
// CHECK: before clean-up: @f: core.silu_mul: shapes differ
func.func @f(%x: !lostwax.tensor<[T, 8], f32>, %y: !lostwax.tensor<[B, 8], f32>) {
  %a = "core.silu_mul"(%x, %y) : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[B, 8], f32>) -> !lostwax.tensor<[T, 8], f32>
  func.return
}
