// RUN: lostwax opt %s | filecheck %s
// Types print in one canonical form: sorted monomials, constants last, no zero terms.

// CHECK: func.func @sizes(%a: !lostwax.tensor<[64*P], f32>, %b: !lostwax.tensor<[B + 1], i32>, %c: !lostwax.tensor<[2*T - 1], i64>, %d: !lostwax.tensor<[4*B*T], f64>, %e: !lostwax.tensor<[], f16>)
func.func @sizes(%a: !lostwax.tensor<[P*64], f32>, %b: !lostwax.tensor<[1 + B], i32>, %c: !lostwax.tensor<[T - 1 + T], i64>, %d: !lostwax.tensor<[T*B + 3*B*T], f64>, %e: !lostwax.tensor<[], f16>) {
  func.return
}

// CHECK: func.func @scales(%a: !lostwax.tensor<[576, 7168], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, %b: !lostwax.tensor<[4, 8], f8E4M3FNUZ>)
func.func @scales(%a: !lostwax.tensor<[576, 7168], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, %b: !lostwax.tensor<[4, 8], f8E4M3FNUZ>) {
  func.return
}

// CHECK: func.func @caches(%a: !lostwax.cache<"latent", N, 64, [512, 64], "bf16">, %b: !lostwax.cache<"index_key", 2*N, 16, [128], "f32">)
func.func @caches(%a: !lostwax.cache<"latent", N, 64, [512, 64], "bf16">, %b: !lostwax.cache<"index_key", N + N, 16, [128], "f32">) {
  func.return
}
