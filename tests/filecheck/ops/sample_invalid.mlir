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
func.func @f(%logits: !lostwax.tensor<[R, 16], f32>, %temperature: !lostwax.tensor<[R], f32>, %top_p: !lostwax.tensor<[T], f32>) -> !lostwax.tensor<[R, 16], f32> {
  %out = "sample.nucleus"(%logits, %temperature, %top_p) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[T], f32>) -> !lostwax.tensor<[R, 16], f32>
  func.return %out : !lostwax.tensor<[R, 16], f32>
}

// -----
// CHECK: @f: sample.logprob: !lostwax.tensor<[T], f32> must be [R]
func.func @f(%logits: !lostwax.tensor<[R, 16], f32>, %targets: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[T], f32> {
  %logprobs = "sample.logprob"(%logits, %targets) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[T], f32>
  func.return %logprobs : !lostwax.tensor<[T], f32>
}
