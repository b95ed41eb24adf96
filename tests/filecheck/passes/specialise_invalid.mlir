// RUN: lostwax opt --verify-diagnostics "--passes=specialise{segment=decode all=true}" %s | filecheck %s

// CHECK: specialise: the module has no @body, only @block; capture the model first
func.func @block() {
  func.return
}

// -----
// CHECK: specialise: dsa.topk reads logits that dsa.index_logits did not make
func.func @body(%logits: !lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 2], i32> {
  %sel = "dsa.topk"(%logits) <{k = 2 : i64}> : (!lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 2], i32>
  func.return %sel : !lostwax.tensor<[T, 2], i32>
}

// -----
// The verifier runs before the pass.
// CHECK: before specialise: @body: core.cast: a cast keeps the shape
func.func @body(%x: !lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 7], f32> {
  %y = "core.cast"(%x) : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 7], f32>
  func.return %y : !lostwax.tensor<[T, 7], f32>
}
