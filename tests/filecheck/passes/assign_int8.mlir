// RUN: lostwax opt "--passes=assign-formats{weights=int8 activations=int8 kv=bf16_apart}" %s | filecheck %s
// RUN: lostwax opt "--passes=assign-formats{dtype=f32 weights=int8}" %s | filecheck %s --check-prefix=KEEP
// RUN: lostwax opt "--passes=assign-formats{dtype=f32 weights=stored}" %s | filecheck %s --check-prefix=FP8

// Weights that are stored as fp8 become si8 with a scale a row; what they multiply is rounded once,
// with a scale a row, too. Plain weights stay, and so does what is cached but for where parts lie.
// CHECK-LABEL: func.func @block(
// CHECK-SAME: %x: !lostwax.tensor<[T, 192], bf16>
// CHECK-SAME: %w: !lostwax.tensor<[4, 192], si8, #lostwax.block_scale<1, 192, f32>> {lostwax.weight = "wk.weight"
// CHECK-SAME: %v: !lostwax.tensor<[6, 192], si8, #lostwax.block_scale<1, 192, f32>>
// CHECK-SAME: %p: !lostwax.tensor<[6, 192], bf16> {lostwax.weight = "plain.weight", lostwax.stored = #lostwax.stored<bf16>}
// CHECK: %x_1 = "quant.quantise"(%x) <{scale_fmt = "fp32"}> : (!lostwax.tensor<[T, 192], bf16>) -> !lostwax.tensor<[T, 192], si8, #lostwax.block_scale<1, 192, f32>>
// CHECK-NOT: quant.quantise
// CHECK: %y = "quant.linear"(%x_1, %w)
// CHECK: %z = "quant.linear"(%x_1, %v)
// CHECK: %q = "quant.linear"(%x, %p)
// Where activations stay, a product's weight is si8 whatever it is stored as.
// KEEP-LABEL: func.func @block(
// KEEP-SAME: %x: !lostwax.tensor<[T, 192], f32>
// KEEP-SAME: %w: !lostwax.tensor<[4, 192], si8, #lostwax.block_scale<1, 192, f32>> {lostwax.weight = "wk.weight"
// KEEP-SAME: %p: !lostwax.tensor<[6, 192], si8, #lostwax.block_scale<1, 192, f32>> {lostwax.weight = "plain.weight", lostwax.stored = #lostwax.stored<bf16>}
// KEEP-NOT: quant.quantise
// KEEP: %y = "quant.linear"(%x, %w)
// Of weights as stored with f32 those in fp8 stay so, kv_b too.
// FP8-LABEL: func.func @block(
// FP8-SAME: %w: !lostwax.tensor<[4, 192], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>
// FP8-SAME: %p: !lostwax.tensor<[6, 192], f32>
func.func @block(%x: !lostwax.tensor<[T, 192], bf16>, %w: !lostwax.tensor<[4, 192], bf16> {lostwax.weight = "wk.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}, %v: !lostwax.tensor<[6, 192], bf16> {lostwax.weight = "wv.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}, %p: !lostwax.tensor<[6, 192], bf16> {lostwax.weight = "plain.weight", lostwax.stored = #lostwax.stored<bf16>}) -> (!lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 6], bf16>) {
  %y = "quant.linear"(%x, %w) : (!lostwax.tensor<[T, 192], bf16>, !lostwax.tensor<[4, 192], bf16>) -> !lostwax.tensor<[T, 4], bf16>
  %z = "quant.linear"(%x, %v) : (!lostwax.tensor<[T, 192], bf16>, !lostwax.tensor<[6, 192], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %q = "quant.linear"(%x, %p) : (!lostwax.tensor<[T, 192], bf16>, !lostwax.tensor<[6, 192], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y, %z, %q : !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 6], bf16>
}

// An attention's kv_b stays plain where activations are rounded: those that it meets are not.
// CHECK-LABEL: func.func @attention(
// CHECK-SAME: %kv_b: !lostwax.tensor<[14, 256], bf16>
// CHECK-NOT: quant.quantise
// CHECK: "mla.attend"(%q_nope, %q_pe, %kv_b,
// KEEP-LABEL: func.func @attention(
// KEEP-SAME: %kv_b: !lostwax.tensor<[14, 256], si8, #lostwax.block_scale<1, 256, f32>>
// FP8-LABEL: func.func @attention(
// FP8-SAME: %kv_b: !lostwax.tensor<[14, 256], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>
func.func @attention(%latent: !lostwax.cache<"latent", N, 64, [256, 2], "bf16">, %q_nope: !lostwax.tensor<[T, 2, 4], bf16>, %q_pe: !lostwax.tensor<[T, 2, 2], bf16>, %kv_b: !lostwax.tensor<[14, 256], bf16> {lostwax.weight = "kv_b", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}, %selection: !lostwax.tensor<[T, 32], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %latent, %selection, %positions, %q_starts, %page_table) <{scale = 5.000000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 256], bf16>, !lostwax.cache<"latent", N, 64, [256, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}
