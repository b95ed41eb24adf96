// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Wrong ops of the `quant` dialect: the message names the op and what is wrong.

// CHECK: @f: quant.linear: x !lostwax.tensor<[T, 8], bf16> does not fit weight !lostwax.tensor<[6, 7], bf16>
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>, %weight: !lostwax.tensor<[6, 7], bf16>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "quant.linear"(%x, %weight) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 7], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// -----
// CHECK: @f: quant.linear: result !lostwax.tensor<[T, 8], bf16> has a wrong shape
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>, %weight: !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "quant.linear"(%x, %weight) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: @f: quant.linear: x [T, K] and weight [N, K] are needed
func.func @f(%x: !lostwax.tensor<[T, 2, 8], bf16>, %weight: !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "quant.linear"(%x, %weight) : (!lostwax.tensor<[T, 2, 8], bf16>, !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// -----
// CHECK: @f: quant.quantise: scale_fmt 'e8m0' is not one of fp32, ue8m0
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f8E4M3FN, #lostwax.block_scale<1, 128, f32>> {
  %y = "quant.quantise"(%x) <{scale_fmt = "e8m0"}> : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>
  func.return %y : !lostwax.tensor<[T, 8], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>
}

// -----
// CHECK: @f: quant.quantise: the result must be fp8 or si8 with f32 scales of one row each, not !lostwax.tensor<[T, 8], f8E4M3FN>
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f8E4M3FN> {
  %y = "quant.quantise"(%x) <{scale_fmt = "fp32"}> : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f8E4M3FN>
  func.return %y : !lostwax.tensor<[T, 8], f8E4M3FN>
}
