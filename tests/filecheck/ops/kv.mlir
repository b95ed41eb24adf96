// RUN: lostwax opt %s | filecheck %s
// Every op of the `kv` dialect prints as it was written.

// CHECK-LABEL: func.func @append_one_part(
// CHECK: %y = "kv.append"(%cache, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16">
func.func @append_one_part(%cache: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %k: !lostwax.tensor<[T, 4], bf16>, %slots: !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16"> {
  %y = "kv.append"(%cache, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16">
  func.return %y : !lostwax.cache<"index_key", N, 64, [4], "bf16">
}

// CHECK-LABEL: func.func @append_two_parts(
// CHECK: %y = "kv.append"(%cache, %c, %k_pe, %slots) : (!lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 2], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [6, 2], "bf16">
func.func @append_two_parts(%cache: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %c: !lostwax.tensor<[T, 6], bf16>, %k_pe: !lostwax.tensor<[T, 2], bf16>, %slots: !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [6, 2], "bf16"> {
  %y = "kv.append"(%cache, %c, %k_pe, %slots) : (!lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 2], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [6, 2], "bf16">
  func.return %y : !lostwax.cache<"latent", N, 64, [6, 2], "bf16">
}
