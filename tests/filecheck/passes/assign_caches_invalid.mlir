// RUN: lostwax opt --verify-diagnostics "--passes=assign-formats{indexer=fp8_fp32 activations=fp8_fp32}" %s | filecheck %s
// What cannot be had is refused with what to ask for instead.

// CHECK: assign-formats: the fp8 indexer rotates heads of a power of two, not of 6; use indexer=bf16
func.func @f(%index_key: !lostwax.cache<"index_key", N, 64, [6], "bf16">, %k: !lostwax.tensor<[T, 6], bf16>, %q: !lostwax.tensor<[T, 2, 6], bf16>, %w: !lostwax.tensor<[T, 2], f32>, %positions: !lostwax.tensor<[T], i32>, %slots: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.cache<"index_key", N, 64, [6], "bf16"> {
  %index_key1 = "kv.append"(%index_key, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [6], "bf16">, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [6], "bf16">
  %y = "dsa.index_logits"(%q, %w, %index_key1, %positions, %q_starts, %page_table) <{scale = 5.000000e-01 : f64}> : (!lostwax.tensor<[T, 2, 6], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [6], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  func.return %index_key1 : !lostwax.cache<"index_key", N, 64, [6], "bf16">
}

// -----
// CHECK: assign-formats: activations=fp8_fp32 rounds what fp8 weights multiply, but no weight is held in fp8
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>) {
  func.return
}
