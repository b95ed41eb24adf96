// RUN: lostwax opt %s | filecheck %s
// Every op of the `quant` dialect prints as it was written.

// CHECK-LABEL: func.func @linear(
// CHECK: %y = "quant.linear"(%x, %weight) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 6], f32>
func.func @linear(%x: !lostwax.tensor<[T, 8], bf16>, %weight: !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 6], f32> {
  %y = "quant.linear"(%x, %weight) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 6], f32>
  func.return %y : !lostwax.tensor<[T, 6], f32>
}

// CHECK-LABEL: func.func @linear_scaled(
// CHECK: %y = "quant.linear"(%x, %weight) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 6], bf16>
func.func @linear_scaled(%x: !lostwax.tensor<[T, 8], bf16>, %weight: !lostwax.tensor<[6, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "quant.linear"(%x, %weight) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// CHECK-LABEL: func.func @linear_of_fp8(
// CHECK: %q = "quant.quantise"(%x) <{scale_fmt = "ue8m0"}> : (!lostwax.tensor<[T, 256], bf16>) -> !lostwax.tensor<[T, 256], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>
// CHECK: %y = "quant.linear"(%q, %weight) : (!lostwax.tensor<[T, 256], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>, !lostwax.tensor<[6, 256], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 6], bf16>
func.func @linear_of_fp8(%x: !lostwax.tensor<[T, 256], bf16>, %weight: !lostwax.tensor<[6, 256], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 6], bf16> {
  %q = "quant.quantise"(%x) <{scale_fmt = "ue8m0"}> : (!lostwax.tensor<[T, 256], bf16>) -> !lostwax.tensor<[T, 256], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>
  %y = "quant.linear"(%q, %weight) : (!lostwax.tensor<[T, 256], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>, !lostwax.tensor<[6, 256], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// CHECK-LABEL: func.func @linear_of_int8(
// CHECK: %q = "quant.quantise"(%x) <{scale_fmt = "fp32"}> : (!lostwax.tensor<[T, 256], bf16>) -> !lostwax.tensor<[T, 256], si8, #lostwax.block_scale<1, 256, f32>>
// CHECK: %y = "quant.linear"(%q, %weight) : (!lostwax.tensor<[T, 256], si8, #lostwax.block_scale<1, 256, f32>>, !lostwax.tensor<[6, 256], si8, #lostwax.block_scale<1, 256, f32>>) -> !lostwax.tensor<[T, 6], bf16>
func.func @linear_of_int8(%x: !lostwax.tensor<[T, 256], bf16>, %weight: !lostwax.tensor<[6, 256], si8, #lostwax.block_scale<1, 256, f32>>) -> !lostwax.tensor<[T, 6], bf16> {
  %q = "quant.quantise"(%x) <{scale_fmt = "fp32"}> : (!lostwax.tensor<[T, 256], bf16>) -> !lostwax.tensor<[T, 256], si8, #lostwax.block_scale<1, 256, f32>>
  %y = "quant.linear"(%q, %weight) : (!lostwax.tensor<[T, 256], si8, #lostwax.block_scale<1, 256, f32>>, !lostwax.tensor<[6, 256], si8, #lostwax.block_scale<1, 256, f32>>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}
