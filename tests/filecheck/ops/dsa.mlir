// RUN: lostwax opt %s | filecheck %s
// Every op of the `dsa` dialect prints as it was written.

// CHECK-LABEL: func.func @index_logits(
// CHECK: %y = "dsa.index_logits"(%q, %weights, %cache, %positions, %q_starts, %page_table) <{scale = 3.535000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
func.func @index_logits(%q: !lostwax.tensor<[T, 2, 4], bf16>, %weights: !lostwax.tensor<[T, 2], f32>, %cache: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32> {
  %y = "dsa.index_logits"(%q, %weights, %cache, %positions, %q_starts, %page_table) <{scale = 3.535000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  func.return %y : !lostwax.tensor<[T, 64*P], f32>
}

// CHECK-LABEL: func.func @topk(
// CHECK: %y = "dsa.topk"(%logits) <{k = 32 : i64}> : (!lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 32], i32>
func.func @topk(%logits: !lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 32], i32> {
  %y = "dsa.topk"(%logits) <{k = 32 : i64}> : (!lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 32], i32>
  func.return %y : !lostwax.tensor<[T, 32], i32>
}

// CHECK-LABEL: func.func @all(
// CHECK: %y = "dsa.all"(%positions) <{k = 32 : i64}> : (!lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 32], i32>
func.func @all(%positions: !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 32], i32> {
  %y = "dsa.all"(%positions) <{k = 32 : i64}> : (!lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 32], i32>
  func.return %y : !lostwax.tensor<[T, 32], i32>
}

// CHECK-LABEL: func.func @fp8_index(
// CHECK: %r = "dsa.hadamard"(%q) : (!lostwax.tensor<[T, 2, 4], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
// CHECK: %y = "dsa.index_logits"(%s, %weights, %cache, %positions, %q_starts, %page_table) <{scale = 3.535000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "index_paged">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
func.func @fp8_index(%q: !lostwax.tensor<[T, 2, 4], bf16>, %weights: !lostwax.tensor<[T, 2], f32>, %cache: !lostwax.cache<"index_key", N, 64, [4], "index_paged">, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32> {
  %r = "dsa.hadamard"(%q) : (!lostwax.tensor<[T, 2, 4], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
  %s = "quant.quantise"(%r) <{scale_fmt = "ue8m0"}> : (!lostwax.tensor<[T, 2, 4], bf16>) -> !lostwax.tensor<[T, 2, 4], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>
  %y = "dsa.index_logits"(%s, %weights, %cache, %positions, %q_starts, %page_table) <{scale = 3.535000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "index_paged">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  func.return %y : !lostwax.tensor<[T, 64*P], f32>
}
