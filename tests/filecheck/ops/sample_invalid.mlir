// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Wrong ops of the `sample` dialect: the message names the op and what is wrong.

// CHECK: @f: sample.pick: !lostwax.tensor<[T], f32> must be [R]
func.func @f(%logits: !lostwax.tensor<[R, 16], f32>, %temperature: !lostwax.tensor<[T], f32>, %seeds: !lostwax.tensor<[R], i32>, %counters: !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>) {
  %ids, %logprobs = "sample.pick"(%logits, %temperature, %seeds, %counters) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[T], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>)
  func.return %ids, %logprobs : !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>
}

// -----
// CHECK: @f: sample.score: results must be [R] and [R, 6]
func.func @f(%logits: !lostwax.tensor<[R, 16], f32>, %targets: !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 5], i32>, !lostwax.tensor<[R, 5], f32>) {
  %target_logprobs, %top_ids, %top_logprobs = "sample.score"(%logits, %targets) <{n = 6 : i64}> : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 5], i32>, !lostwax.tensor<[R, 5], f32>)
  func.return %target_logprobs, %top_ids, %top_logprobs : !lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 5], i32>, !lostwax.tensor<[R, 5], f32>
}

// -----
// CHECK: @f: sample.nucleus: !lostwax.tensor<[T], f32> must be [R]
func.func @f(%logits: !lostwax.tensor<[R, 16], f32>, %temperature: !lostwax.tensor<[R], f32>, %top_k: !lostwax.tensor<[R], i32>, %top_p: !lostwax.tensor<[T], f32>, %min_p: !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 16], f32> {
  %out = "sample.nucleus"(%logits, %temperature, %top_k, %top_p, %min_p) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[T], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 16], f32>
  func.return %out : !lostwax.tensor<[R, 16], f32>
}

// -----
// CHECK: @f: sample.logprob: !lostwax.tensor<[T], f32> must be [R]
func.func @f(%logits: !lostwax.tensor<[R, 16], f32>, %targets: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[T], f32> {
  %logprobs = "sample.logprob"(%logits, %targets) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[T], f32>
  func.return %logprobs : !lostwax.tensor<[T], f32>
}

// -----
// CHECK: @f: sample.mask: !lostwax.tensor<[T], i32> must be [R]
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %masks: !lostwax.tensor<[M, 2], i32>, %mask_rows: !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.mask"(%logits, %masks, %mask_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[M, 2], i32>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// -----
// CHECK: @f: sample.mask: !lostwax.tensor<[M, 3], i32> must have rows of 2 words, a bit an id of 48
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %masks: !lostwax.tensor<[M, 3], i32>, %mask_rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.mask"(%logits, %masks, %mask_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[M, 3], i32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// -----
// CHECK: @f: sample.mask: result !lostwax.tensor<[R, 47], f32> must have the shape of !lostwax.tensor<[R, 48], f32>
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %masks: !lostwax.tensor<[M, 2], i32>, %mask_rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 47], f32> {
  %out = "sample.mask"(%logits, %masks, %mask_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[M, 2], i32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 47], f32>
  func.return %out : !lostwax.tensor<[R, 47], f32>
}

// -----
// CHECK: @f: sample.mask: !lostwax.tensor<[R, V], f32> must have a constant number of ids
func.func @f(%logits: !lostwax.tensor<[R, V], f32>, %masks: !lostwax.tensor<[M, 2], i32>, %mask_rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, V], f32> {
  %out = "sample.mask"(%logits, %masks, %mask_rows) : (!lostwax.tensor<[R, V], f32>, !lostwax.tensor<[M, 2], i32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, V], f32>
  func.return %out : !lostwax.tensor<[R, V], f32>
}

// -----
// CHECK: @f: sample.bias: !lostwax.tensor<[T], i32> must be [R]
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %biases: !lostwax.tensor<[Q, 48], f32>, %bias_rows: !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.bias"(%logits, %biases, %bias_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[Q, 48], f32>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// -----
// CHECK: @f: sample.bias: !lostwax.tensor<[Q, 47], f32> must have rows of 48 numbers
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %biases: !lostwax.tensor<[Q, 47], f32>, %bias_rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.bias"(%logits, %biases, %bias_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[Q, 47], f32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// -----
// CHECK: @f: sample.bias: result !lostwax.tensor<[R, 47], f32> must have the shape of !lostwax.tensor<[R, 48], f32>
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %biases: !lostwax.tensor<[Q, 48], f32>, %bias_rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 47], f32> {
  %out = "sample.bias"(%logits, %biases, %bias_rows) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[Q, 48], f32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 47], f32>
  func.return %out : !lostwax.tensor<[R, 47], f32>
}

// -----
// CHECK: @f: sample.penalise: !lostwax.tensor<[T], f32> must be [R]
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %counts: !lostwax.tensor<[C, 48], i32>, %count_rows: !lostwax.tensor<[R], i32>, %recent: !lostwax.tensor<[R, 3], i32>, %repetition: !lostwax.tensor<[T], f32>, %frequency: !lostwax.tensor<[R], f32>, %presence: !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.penalise"(%logits, %counts, %count_rows, %recent, %repetition, %frequency, %presence) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[C, 48], i32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R, 3], i32>, !lostwax.tensor<[T], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// -----
// CHECK: @f: sample.penalise: !lostwax.tensor<[T, 3], i32> must have R rows of ids
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %counts: !lostwax.tensor<[C, 48], i32>, %count_rows: !lostwax.tensor<[R], i32>, %recent: !lostwax.tensor<[T, 3], i32>, %repetition: !lostwax.tensor<[R], f32>, %frequency: !lostwax.tensor<[R], f32>, %presence: !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.penalise"(%logits, %counts, %count_rows, %recent, %repetition, %frequency, %presence) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[C, 48], i32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[T, 3], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// -----
// CHECK: @f: sample.penalise: !lostwax.tensor<[C, 47], i32> must have rows of 48 numbers
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %counts: !lostwax.tensor<[C, 47], i32>, %count_rows: !lostwax.tensor<[R], i32>, %recent: !lostwax.tensor<[R, 3], i32>, %repetition: !lostwax.tensor<[R], f32>, %frequency: !lostwax.tensor<[R], f32>, %presence: !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32> {
  %out = "sample.penalise"(%logits, %counts, %count_rows, %recent, %repetition, %frequency, %presence) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[C, 47], i32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R, 3], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 48], f32>
  func.return %out : !lostwax.tensor<[R, 48], f32>
}

// -----
// CHECK: @f: sample.penalise: result !lostwax.tensor<[R, 47], f32> must have the shape of !lostwax.tensor<[R, 48], f32>
func.func @f(%logits: !lostwax.tensor<[R, 48], f32>, %counts: !lostwax.tensor<[C, 48], i32>, %count_rows: !lostwax.tensor<[R], i32>, %recent: !lostwax.tensor<[R, 3], i32>, %repetition: !lostwax.tensor<[R], f32>, %frequency: !lostwax.tensor<[R], f32>, %presence: !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 47], f32> {
  %out = "sample.penalise"(%logits, %counts, %count_rows, %recent, %repetition, %frequency, %presence) : (!lostwax.tensor<[R, 48], f32>, !lostwax.tensor<[C, 48], i32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R, 3], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 47], f32>
  func.return %out : !lostwax.tensor<[R, 47], f32>
}
