// RUN: lostwax opt "--passes=assign-formats{activations=fp8_ue8m0}" %s | filecheck %s
// RUN: lostwax opt "--passes=assign-formats{activations=fp8_fp32 fp8=f8E4M3FNUZ}" %s | filecheck %s --check-prefix=FNUZ

// What two fp8 weights multiply is rounded once; a plain weight's activations stay.
// CHECK: %[[X:.*]] = "quant.quantise"(%x) <{scale_fmt = "ue8m0"}> : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>
// CHECK-NEXT: %y = "quant.linear"(%[[X]], %a)
// CHECK-NEXT: %z = "quant.linear"(%[[X]], %b)
// CHECK-NEXT: %g = "quant.linear"(%x, %gate)

// FNUZ: %a: !lostwax.tensor<[4, 8], f8E4M3FNUZ, #lostwax.block_scale<128, 128, f32>>
// FNUZ: "quant.quantise"(%x) <{scale_fmt = "fp32"}> : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f8E4M3FNUZ, #lostwax.block_scale<1, 128, f32>>
func.func @block(%x: !lostwax.tensor<[T, 8], bf16>, %a: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "a.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}, %b: !lostwax.tensor<[6, 8], bf16> {lostwax.weight = "b.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}, %gate: !lostwax.tensor<[2, 8], bf16> {lostwax.weight = "gate.weight", lostwax.stored = #lostwax.stored<bf16>}) -> (!lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 2], f32>) {
  %y = "quant.linear"(%x, %a) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[4, 8], bf16>) -> !lostwax.tensor<[T, 4], bf16>
  %z = "quant.linear"(%x, %b) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %g = "quant.linear"(%x, %gate) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[2, 8], bf16>) -> !lostwax.tensor<[T, 2], f32>
  func.return %y, %z, %g : !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 2], f32>
}
