// RUN: lostwax opt %s | filecheck %s
// Every op of the `sample` dialect prints as it was written.

// CHECK-LABEL: func.func @pick(
// CHECK: %ids, %logprobs = "sample.pick"(%logits, %temperature, %seeds, %counters) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>)
func.func @pick(%logits: !lostwax.tensor<[R, 16], f32>, %temperature: !lostwax.tensor<[R], f32>, %seeds: !lostwax.tensor<[R], i32>, %counters: !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>) {
  %ids, %logprobs = "sample.pick"(%logits, %temperature, %seeds, %counters) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>)
  func.return %ids, %logprobs : !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>
}

// CHECK-LABEL: func.func @penalise(
// CHECK: %out = "sample.penalise"(%logits, %counts, %count_rows, %recent, %repetition, %frequency, %presence) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[C, 48], i32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R, 3], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32>
func.func @penalise(%logits: !lostwax.tensor<[R, 48], f32>, %counts: !lostwax.tensor<[C, 48], i32>, %count_rows: !lostwax.tensor<[R], i32>, %recent: !lostwax.tensor<[R, 3], i32>, %repetition: !lostwax.tensor<[R], f32>, %frequency: !lostwax.tensor<[R], f32>, %presence: !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.penalise"(%logits, %counts, %count_rows, %recent, %repetition, %frequency, %presence) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[C, 48], i32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R, 3], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// CHECK-LABEL: func.func @bias(
// CHECK: %out = "sample.bias"(%logits, %biases, %bias_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[Q, 48], f32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32>
func.func @bias(%logits: !lostwax.tensor<[R, 48], f32>, %biases: !lostwax.tensor<[Q, 48], f32>, %bias_rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.bias"(%logits, %biases, %bias_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[Q, 48], f32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// CHECK-LABEL: func.func @mask(
// CHECK: %out = "sample.mask"(%logits, %masks, %mask_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[M, 2], i32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32>
func.func @mask(%logits: !lostwax.tensor<[R, 48], f32>, %masks: !lostwax.tensor<[M, 2], i32>, %mask_rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.mask"(%logits, %masks, %mask_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[M, 2], i32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// CHECK-LABEL: func.func @nucleus(
// CHECK: %out = "sample.nucleus"(%logits, %temperature, %top_k, %top_p, %min_p) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 16], f32>
func.func @nucleus(%logits: !lostwax.tensor<[R, 16], f32>, %temperature: !lostwax.tensor<[R], f32>, %top_k: !lostwax.tensor<[R], i32>, %top_p: !lostwax.tensor<[R], f32>, %min_p: !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 16], f32> {
  %out = "sample.nucleus"(%logits, %temperature, %top_k, %top_p, %min_p) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 16], f32>
  func.return %out : !lostwax.tensor<[R, 16], f32>
}

// CHECK-LABEL: func.func @logprob(
// CHECK: %logprobs = "sample.logprob"(%logits, %targets) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R], f32>
func.func @logprob(%logits: !lostwax.tensor<[R, 16], f32>, %targets: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R], f32> {
  %logprobs = "sample.logprob"(%logits, %targets) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R], f32>
  func.return %logprobs : !lostwax.tensor<[R], f32>
}

// CHECK-LABEL: func.func @score(
// CHECK: %target_logprobs, %top_ids, %top_logprobs = "sample.score"(%logits, %targets) <{n = 5 : i64}> : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 5], i32>, !lostwax.tensor<[R, 5], f32>)
func.func @score(%logits: !lostwax.tensor<[R, 16], f32>, %targets: !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 5], i32>, !lostwax.tensor<[R, 5], f32>) {
  %target_logprobs, %top_ids, %top_logprobs = "sample.score"(%logits, %targets) <{n = 5 : i64}> : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 5], i32>, !lostwax.tensor<[R, 5], f32>)
  func.return %target_logprobs, %top_ids, %top_logprobs : !lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 5], i32>, !lostwax.tensor<[R, 5], f32>
}
