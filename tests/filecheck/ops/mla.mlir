// RUN: lostwax opt %s | filecheck %s
// Every op of the `mla` dialect prints as it was written.

// CHECK-LABEL: func.func @attend(
// CHECK: %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %cache, %selection, %positions, %q_starts, %page_table) <{scale = 7.650000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
func.func @attend(%q_nope: !lostwax.tensor<[T, 2, 4], bf16>, %q_pe: !lostwax.tensor<[T, 2, 2], bf16>, %kv_b: !lostwax.tensor<[14, 6], bf16>, %cache: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %selection: !lostwax.tensor<[T, 32], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %cache, %selection, %positions, %q_starts, %page_table) <{scale = 7.650000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// CHECK-LABEL: func.func @attend_scaled(
// CHECK: %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %cache, %selection, %positions, %q_starts, %page_table) <{scale = 7.650000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
func.func @attend_scaled(%q_nope: !lostwax.tensor<[T, 2, 4], bf16>, %q_pe: !lostwax.tensor<[T, 2, 2], bf16>, %kv_b: !lostwax.tensor<[14, 6], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, %cache: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %selection: !lostwax.tensor<[T, 32], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %cache, %selection, %positions, %q_starts, %page_table) <{scale = 7.650000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}
