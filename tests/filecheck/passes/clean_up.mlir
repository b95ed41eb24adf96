// RUN: lostwax opt --passes=clean-up %s | filecheck %s

// The logits that nothing reads go, and what only they read; the append stays, its result leaves.
// CHECK-LABEL: func.func @block(
// CHECK-NEXT: %k = "quant.linear"(%x, %wk)
// CHECK-NEXT: %new = "kv.append"(%keys, %k, %slots)
// CHECK-NEXT: func.return %new
// CHECK-NOT: @uncalled
// CHECK: func.func @decode(
// CHECK-NEXT: core.call @block(
func.func @block(%x: !lostwax.tensor<[T, 8], bf16>, %w: !lostwax.tensor<[T, 2], f32>, %slots: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>, %keys: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %wk: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "wk.weight"}) -> (!lostwax.cache<"index_key", N, 64, [4], "bf16"> {lostwax.alias = 5 : i64}) {
  %q = "core.reshape"(%x) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
  %k = "quant.linear"(%x, %wk) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[4, 8], bf16>) -> !lostwax.tensor<[T, 4], bf16>
  %new = "kv.append"(%keys, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16">
  %logits = "dsa.index_logits"(%q, %w, %new, %slots, %q_starts, %page_table) <{scale = 1.0 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  func.return %new : !lostwax.cache<"index_key", N, 64, [4], "bf16">
}
func.func @uncalled(%x: !lostwax.tensor<[T, 8], bf16>) {
  func.return
}
func.func @decode(%x: !lostwax.tensor<[T, 8], bf16>, %w: !lostwax.tensor<[T, 2], f32>, %slots: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) {
  core.call @block(%x, %w, %slots, %q_starts, %page_table) layer 0 weights "" : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> ()
  func.return
}
