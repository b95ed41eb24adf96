// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Wrong ops of the `dsa` dialect: the message names the op and what is wrong.

// CHECK: @f: dsa.index_logits: weights must be [T, heads]
func.func @f(%q: !lostwax.tensor<[T, 2, 4], bf16>, %weights: !lostwax.tensor<[T, 3], f32>, %cache: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32> {
  %y = "dsa.index_logits"(%q, %weights, %cache, %positions, %q_starts, %page_table) <{scale = 3.535000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 3], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  func.return %y : !lostwax.tensor<[T, 64*P], f32>
}

// -----
// CHECK: @f: dsa.index_logits: cache !lostwax.cache<"latent", N, 64, [6, 2], "bf16"> does not fit
func.func @f(%q: !lostwax.tensor<[T, 2, 4], bf16>, %weights: !lostwax.tensor<[T, 2], f32>, %cache: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32> {
  %y = "dsa.index_logits"(%q, %weights, %cache, %positions, %q_starts, %page_table) <{scale = 3.535000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  func.return %y : !lostwax.tensor<[T, 64*P], f32>
}

// -----
// CHECK: @f: dsa.index_logits: result must be [T, 64*P]
func.func @f(%q: !lostwax.tensor<[T, 2, 4], bf16>, %weights: !lostwax.tensor<[T, 2], f32>, %cache: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, P], f32> {
  %y = "dsa.index_logits"(%q, %weights, %cache, %positions, %q_starts, %page_table) <{scale = 3.535000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, P], f32>
  func.return %y : !lostwax.tensor<[T, P], f32>
}

// -----
// CHECK: @f: dsa.topk: result must be [T, 32]
func.func @f(%logits: !lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 31], i32> {
  %y = "dsa.topk"(%logits) <{k = 32 : i64}> : (!lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 31], i32>
  func.return %y : !lostwax.tensor<[T, 31], i32>
}

// -----
// CHECK: @f: dsa.all: result must be [T, 32]
func.func @f(%positions: !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[B, 32], i32> {
  %y = "dsa.all"(%positions) <{k = 32 : i64}> : (!lostwax.tensor<[T], i32>) -> !lostwax.tensor<[B, 32], i32>
  func.return %y : !lostwax.tensor<[B, 32], i32>
}

// -----
// CHECK: @f: dsa.topk: operand 'logits' at position 0 does not verify:
// CHECK-NEXT: a plain f32 tensor is needed
func.func @f(%logits: !lostwax.tensor<[T, 64*P], bf16>) -> !lostwax.tensor<[T, 32], i32> {
  %y = "dsa.topk"(%logits) <{k = 32 : i64}> : (!lostwax.tensor<[T, 64*P], bf16>) -> !lostwax.tensor<[T, 32], i32>
  func.return %y : !lostwax.tensor<[T, 32], i32>
}

// -----
// CHECK: @f: dsa.hadamard: the last axis, 6, is no power of two
func.func @f(%x: !lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "dsa.hadamard"(%x) : (!lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// -----
// CHECK: @f: dsa.index_logits: q !lostwax.tensor<[T, 2, 4], bf16> and cache !lostwax.cache<"index_key", N, 64, [4], "index_row"> must both be scaled fp8, or neither
func.func @f(%q: !lostwax.tensor<[T, 2, 4], bf16>, %weights: !lostwax.tensor<[T, 2], f32>, %cache: !lostwax.cache<"index_key", N, 64, [4], "index_row">, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32> {
  %y = "dsa.index_logits"(%q, %weights, %cache, %positions, %q_starts, %page_table) <{scale = 3.535000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "index_row">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  func.return %y : !lostwax.tensor<[T, 64*P], f32>
}
