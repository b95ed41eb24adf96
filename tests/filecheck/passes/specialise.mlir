// RUN: lostwax opt --passes=specialise{segment=decode} %s | filecheck %s --check-prefix=DECODE
// RUN: lostwax opt --passes=specialise{segment=extend} %s | filecheck %s --check-prefix=EXTEND
// RUN: lostwax opt "--passes=specialise{segment=score}" %s | filecheck %s --check-prefix=SCORE
// RUN: lostwax opt "--passes=specialise{segment=decode all=true}" %s | filecheck %s --check-prefix=ALL

// Decode has one row a request: T is B in every type, also in sums and products.
// DECODE-LABEL: func.func @select(
// DECODE-SAME: !lostwax.tensor<[B, 2, 4], bf16>
// DECODE: "dsa.index_logits"
// DECODE-SAME: -> !lostwax.tensor<[B, 64*P], f32>
// DECODE: "dsa.topk"
// DECODE-SAME: !lostwax.tensor<[B, 2], i32>
// DECODE: func.func @sums(%x: !lostwax.tensor<[2*B, B*P + 1], bf16>)
// DECODE-LABEL: func.func @decode(
// DECODE-SAME: %positions: !lostwax.tensor<[B], i32>
// DECODE: core.call @select
// DECODE-NOT: @body

// Extend changes no type; only the segment's name changes and the others go.
// EXTEND-LABEL: func.func @select(
// EXTEND-SAME: !lostwax.tensor<[T, 2, 4], bf16>
// EXTEND: "dsa.topk"
// EXTEND-LABEL: func.func @extend(
// EXTEND-NOT: @body

// SCORE-LABEL: func.func @score(
// SCORE: core.call @marker
// SCORE-NOT: @body

// ALL: %logits = "dsa.index_logits"
// ALL: %sel = "dsa.all"(%positions) <{k = 2 : i64}> : (!lostwax.tensor<[B], i32>) -> !lostwax.tensor<[B, 2], i32>
// ALL-NOT: dsa.topk
func.func @select(%q: !lostwax.tensor<[T, 2, 4], bf16>, %w: !lostwax.tensor<[T, 2], f32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>, %keys: !lostwax.cache<"index_key", N, 64, [4], "bf16">) -> !lostwax.tensor<[T, 2], i32> {
  %logits = "dsa.index_logits"(%q, %w, %keys, %positions, %q_starts, %page_table) <{scale = 1.0 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  %sel = "dsa.topk"(%logits) <{k = 2 : i64}> : (!lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 2], i32>
  func.return %sel : !lostwax.tensor<[T, 2], i32>
}
func.func @sums(%x: !lostwax.tensor<[T + B, T*P + 1], bf16>) {
  func.return
}
func.func @body(%q: !lostwax.tensor<[T, 2, 4], bf16>, %w: !lostwax.tensor<[T, 2], f32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 2], i32> {
  %sel = core.call @select(%q, %w, %positions, %q_starts, %page_table) layer 0 weights "" : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 2], i32>
  func.return %sel : !lostwax.tensor<[T, 2], i32>
}
func.func @score(%x: !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T], i32> {
  %y = core.call @marker(%x) layer 0 weights "" : (!lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T], i32>
  func.return %y : !lostwax.tensor<[T], i32>
}
func.func private @marker(!lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T], i32>
