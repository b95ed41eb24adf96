// RUN: lostwax opt %s | filecheck %s
// Every op of the `moe` dialect prints as it was written.

// CHECK-LABEL: func.func @route(
// CHECK: %ids, %weights = "moe.route"(%logits, %bias, %positions) <{top_k = 2 : i64, n_group = 4 : i64, topk_group = 2 : i64, normalise = true, scale = 2.500000e+00 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], f32>, !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>)
func.func @route(%logits: !lostwax.tensor<[T, 8], f32>, %bias: !lostwax.tensor<[8], f32>, %positions: !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>) {
  %ids, %weights = "moe.route"(%logits, %bias, %positions) <{top_k = 2 : i64, n_group = 4 : i64, topk_group = 2 : i64, normalise = true, scale = 2.500000e+00 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], f32>, !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>)
  func.return %ids, %weights : !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>
}

// CHECK-LABEL: func.func @experts(
// CHECK: %y = "moe.experts"(%x, %ids, %weights, %gate, %up, %down) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 8, 3], bf16>) -> !lostwax.tensor<[T, 8], f32>
func.func @experts(%x: !lostwax.tensor<[T, 8], bf16>, %ids: !lostwax.tensor<[T, 2], i32>, %weights: !lostwax.tensor<[T, 2], f32>, %gate: !lostwax.tensor<[4, 3, 8], bf16>, %up: !lostwax.tensor<[4, 3, 8], bf16>, %down: !lostwax.tensor<[4, 8, 3], bf16>) -> !lostwax.tensor<[T, 8], f32> {
  %y = "moe.experts"(%x, %ids, %weights, %gate, %up, %down) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 8, 3], bf16>) -> !lostwax.tensor<[T, 8], f32>
  func.return %y : !lostwax.tensor<[T, 8], f32>
}

// CHECK-LABEL: func.func @experts_scaled(
// CHECK: %y = "moe.experts"(%x, %ids, %weights, %gate, %up, %down) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[4, 3, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, !lostwax.tensor<[4, 3, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, !lostwax.tensor<[4, 8, 3], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 8], bf16>
func.func @experts_scaled(%x: !lostwax.tensor<[T, 8], bf16>, %ids: !lostwax.tensor<[T, 2], i32>, %weights: !lostwax.tensor<[T, 2], f32>, %gate: !lostwax.tensor<[4, 3, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, %up: !lostwax.tensor<[4, 3, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, %down: !lostwax.tensor<[4, 8, 3], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "moe.experts"(%x, %ids, %weights, %gate, %up, %down) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[4, 3, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, !lostwax.tensor<[4, 3, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>, !lostwax.tensor<[4, 8, 3], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}
