// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Wrong ops of the `kv` dialect: the message names the op and what is wrong.

// CHECK: @f: kv.append: rows of (6,) do not fit cache rows (6, 2)
func.func @f(%cache: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %c: !lostwax.tensor<[T, 6], bf16>, %slots: !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [6, 2], "bf16"> {
  %y = "kv.append"(%cache, %c, %slots) : (!lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [6, 2], "bf16">
  func.return %y : !lostwax.cache<"latent", N, 64, [6, 2], "bf16">
}

// -----
// CHECK: @f: kv.append: the result has the cache's type
func.func @f(%cache: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %k: !lostwax.tensor<[T, 4], bf16>, %slots: !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [6, 2], "bf16"> {
  %y = "kv.append"(%cache, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [6, 2], "bf16">
  func.return %y : !lostwax.cache<"latent", N, 64, [6, 2], "bf16">
}

// -----
// CHECK: @f: kv.append: rows [T, width] with one slot each are needed
func.func @f(%cache: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %k: !lostwax.tensor<[B, 4], bf16>, %slots: !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16"> {
  %y = "kv.append"(%cache, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[B, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16">
  func.return %y : !lostwax.cache<"index_key", N, 64, [4], "bf16">
}

// -----
// CHECK: @f: kv.append: the old cache value is used after the append, by ['dsa.index_logits']
func.func @f(%cache: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %k: !lostwax.tensor<[T, 4], bf16>, %slots: !lostwax.tensor<[T], i32>, %q: !lostwax.tensor<[T, 2, 4], bf16>, %w: !lostwax.tensor<[T, 2], f32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 64*P], f32>) {
  %new = "kv.append"(%cache, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16">
  %l = "dsa.index_logits"(%q, %w, %cache, %slots, %q_starts, %page_table) <{scale = 1.0 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  func.return %new, %l : !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 64*P], f32>
}

// -----
// CHECK: @f: kv.append: row 0, !lostwax.tensor<[T, 4], bf16>, does not fit layout 'index_paged'
func.func @f(%cache: !lostwax.cache<"index_key", N, 64, [4], "index_paged">, %k: !lostwax.tensor<[T, 4], bf16>, %slots: !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "index_paged"> {
  %y = "kv.append"(%cache, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "index_paged">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "index_paged">
  func.return %y : !lostwax.cache<"index_key", N, 64, [4], "index_paged">
}

// -----
// CHECK: @f: kv.append: row 0, !lostwax.tensor<[T, 4], f8E4M3FNUZ, #lostwax.block_scale<1, 128, f32>>, does not fit layout 'index_row'
func.func @f(%cache: !lostwax.cache<"index_key", N, 64, [4], "index_row">, %k: !lostwax.tensor<[T, 4], f8E4M3FNUZ, #lostwax.block_scale<1, 128, f32>>, %slots: !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "index_row"> {
  %y = "kv.append"(%cache, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "index_row">, !lostwax.tensor<[T, 4], f8E4M3FNUZ, #lostwax.block_scale<1, 128, f32>>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "index_row">
  func.return %y : !lostwax.cache<"index_key", N, 64, [4], "index_row">
}
