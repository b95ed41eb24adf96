// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Types that no view, record or kernel could name are refused where they are written.

// CHECK: lostwax.tensor: f8E8M0FNU is not one of f64, f32, f16, bf16, si8, i32, i64, f8E4M3FN, f8E4M3FNUZ
func.func @dtype(%a: !lostwax.tensor<[T], f8E8M0FNU>) {
  func.return
}

// -----
// CHECK: lostwax.tensor: block scales need two axes
func.func @scale(%a: !lostwax.tensor<[T], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) {
  func.return
}

// -----
// CHECK: lostwax.cache: layout 'int3' is not one of f32, bf16
func.func @layout(%a: !lostwax.cache<"latent", N, 64, [512, 64], "int3">) {
  func.return
}

// -----
// CHECK: has an empty page or row
func.func @row(%a: !lostwax.cache<"latent", N, 64, [], "bf16">) {
  func.return
}
