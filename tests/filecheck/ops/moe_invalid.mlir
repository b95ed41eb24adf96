// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Wrong ops of the `moe` dialect: the message names the op and what is wrong.

// CHECK: @f: moe.route: one bias an expert is needed
func.func @f(%logits: !lostwax.tensor<[T, 8], f32>, %bias: !lostwax.tensor<[7], f32>, %positions: !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>) {
  %ids, %weights = "moe.route"(%logits, %bias, %positions) <{top_k = 2 : i64, n_group = 4 : i64, topk_group = 2 : i64, normalise = true, scale = 2.500000e+00 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[7], f32>, !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>)
  func.return %ids, %weights : !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>
}

// -----
// CHECK: @f: moe.route: 8 experts do not divide into 3 groups
func.func @f(%logits: !lostwax.tensor<[T, 8], f32>, %bias: !lostwax.tensor<[8], f32>, %positions: !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>) {
  %ids, %weights = "moe.route"(%logits, %bias, %positions) <{top_k = 2 : i64, n_group = 3 : i64, topk_group = 2 : i64, normalise = true, scale = 2.500000e+00 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], f32>, !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>)
  func.return %ids, %weights : !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>
}

// -----
// CHECK: @f: moe.route: topk_group 5 is not one of 1..4
func.func @f(%logits: !lostwax.tensor<[T, 8], f32>, %bias: !lostwax.tensor<[8], f32>, %positions: !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>) {
  %ids, %weights = "moe.route"(%logits, %bias, %positions) <{top_k = 2 : i64, n_group = 4 : i64, topk_group = 5 : i64, normalise = true, scale = 2.500000e+00 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], f32>, !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>)
  func.return %ids, %weights : !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>
}

// -----
// CHECK: @f: moe.route: results must be [T, 2]
func.func @f(%logits: !lostwax.tensor<[T, 8], f32>, %bias: !lostwax.tensor<[8], f32>, %positions: !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 3], i32>, !lostwax.tensor<[T, 2], f32>) {
  %ids, %weights = "moe.route"(%logits, %bias, %positions) <{top_k = 2 : i64, n_group = 4 : i64, topk_group = 2 : i64, normalise = true, scale = 2.500000e+00 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], f32>, !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 3], i32>, !lostwax.tensor<[T, 2], f32>)
  func.return %ids, %weights : !lostwax.tensor<[T, 3], i32>, !lostwax.tensor<[T, 2], f32>
}

// -----
// CHECK: @f: moe.experts: experts !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 3, 8], bf16> do not fit
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>, %ids: !lostwax.tensor<[T, 2], i32>, %weights: !lostwax.tensor<[T, 2], f32>, %gate: !lostwax.tensor<[4, 3, 8], bf16>, %up: !lostwax.tensor<[4, 3, 8], bf16>, %down: !lostwax.tensor<[4, 3, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "moe.experts"(%x, %ids, %weights, %gate, %up, %down) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 3, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: @f: moe.experts: one choice of experts a row
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>, %ids: !lostwax.tensor<[B, 2], i32>, %weights: !lostwax.tensor<[T, 2], f32>, %gate: !lostwax.tensor<[4, 3, 8], bf16>, %up: !lostwax.tensor<[4, 3, 8], bf16>, %down: !lostwax.tensor<[4, 8, 3], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "moe.experts"(%x, %ids, %weights, %gate, %up, %down) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[B, 2], i32>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 8, 3], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}
