// RUN: lostwax opt "--passes=assign-formats{kv=fp8_656 kv_scale=ue8m0}" %s | filecheck %s --check-prefix=LATENT
// RUN: lostwax opt "--passes=assign-formats{kv=fp8_576}" %s | filecheck %s --check-prefix=RAW
// RUN: lostwax opt "--passes=assign-formats{indexer=fp8_ue8m0}" %s | filecheck %s --check-prefix=INDEX
// RUN: lostwax opt "--passes=assign-formats{indexer=fp8_fp32 index_pages=index_row}" %s | filecheck %s --check-prefix=ROW
// RUN: lostwax opt "--passes=assign-formats{dtype=f32 indexer=bf16}" %s | filecheck %s --check-prefix=CAST
// RUN: lostwax opt "--passes=assign-formats{kv=fp8_656 indexer=fp8_ue8m0 fp8=f8E4M3FNUZ}" %s | filecheck %s --check-prefix=FNUZ
// RUN: lostwax opt "--passes=assign-formats" %s | filecheck %s --check-prefix=SAME

// The latents are rounded before they are stored, the rope keys by the layout; queries stay.
// LATENT: %latent: !lostwax.cache<"latent", N, 64, [256, 2], "fp8_656">, %index_key: !lostwax.cache<"index_key", N, 64, [4], "bf16">
// LATENT: %{{.*}} = "quant.quantise"(%c) <{scale_fmt = "ue8m0"}> : (!lostwax.tensor<[T, 256], bf16>) -> !lostwax.tensor<[T, 256], f8E4M3FN, #lostwax.block_scale<1, 128, f32>>
// LATENT-NEXT: "kv.append"(%latent, %{{.*}}, %k_pe, %slots)
// LATENT-NOT: dsa.hadamard
// LATENT: "mla.attend"(%q_nope, %q_pe, %kv_b, %latent1

// fp8_576 has no scales: append rounds.
// RAW: %latent: !lostwax.cache<"latent", N, 64, [256, 2], "fp8_576">
// RAW-NOT: quantise

// Keys and queries of the indexer are rotated, then rounded; the latents stay.
// INDEX: %latent: !lostwax.cache<"latent", N, 64, [256, 2], "bf16">, %index_key: !lostwax.cache<"index_key", N, 64, [4], "index_paged">
// INDEX: %[[K:.*]] = "dsa.hadamard"(%k) : (!lostwax.tensor<[T, 4], bf16>) -> !lostwax.tensor<[T, 4], bf16>
// INDEX-NEXT: %[[K8:.*]] = "quant.quantise"(%[[K]]) <{scale_fmt = "ue8m0"}>
// INDEX-NEXT: "kv.append"(%index_key, %[[K8]], %slots)
// INDEX-NEXT: %[[Q:.*]] = "dsa.hadamard"(%q)
// INDEX-NEXT: %[[Q8:.*]] = "quant.quantise"(%[[Q]]) <{scale_fmt = "ue8m0"}>
// INDEX-NEXT: "dsa.index_logits"(%[[Q8]], %w,

// ROW: !lostwax.cache<"index_key", N, 64, [4], "index_row">
// ROW: "quant.quantise"(%{{.*}}) <{scale_fmt = "fp32"}>

// A plain dtype only rounds the queries.
// CAST: %latent: !lostwax.cache<"latent", N, 64, [256, 2], "f32">, %index_key: !lostwax.cache<"index_key", N, 64, [4], "bf16">
// CAST: %[[QB:.*]] = "core.cast"(%q) : (!lostwax.tensor<[T, 2, 4], f32>) -> !lostwax.tensor<[T, 2, 4], bf16>
// CAST: "dsa.index_logits"(%[[QB]], %w,

// One encoding throughout: layouts and what is rounded for them.
// FNUZ: %latent: !lostwax.cache<"latent", N, 64, [256, 2], "fp8_656_fnuz">, %index_key: !lostwax.cache<"index_key", N, 64, [4], "index_paged_fnuz">
// FNUZ: "quant.quantise"(%c) {{.*}} -> !lostwax.tensor<[T, 256], f8E4M3FNUZ, #lostwax.block_scale<1, 128, f32>>
// FNUZ: "dsa.hadamard"(%k)
// FNUZ-NEXT: "quant.quantise"({{.*}} f8E4M3FNUZ
// FNUZ: "dsa.hadamard"(%q)
// FNUZ-NEXT: "quant.quantise"({{.*}} f8E4M3FNUZ

// Without options nothing changes.
// SAME-NOT: quantise
// SAME-NOT: hadamard
// SAME: func.return
func.func @block(%latent: !lostwax.cache<"latent", N, 64, [256, 2], "bf16">, %index_key: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %c: !lostwax.tensor<[T, 256], bf16>, %k_pe: !lostwax.tensor<[T, 2], bf16>, %k: !lostwax.tensor<[T, 4], bf16>, %q: !lostwax.tensor<[T, 2, 4], bf16>, %w: !lostwax.tensor<[T, 2], f32>, %q_nope: !lostwax.tensor<[T, 2, 4], bf16>, %q_pe: !lostwax.tensor<[T, 2, 2], bf16>, %kv_b: !lostwax.tensor<[14, 256], bf16>, %positions: !lostwax.tensor<[T], i32>, %slots: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> (!lostwax.tensor<[T, 6], bf16>, !lostwax.cache<"latent", N, 64, [256, 2], "bf16"> {lostwax.alias = 0 : i64}, !lostwax.cache<"index_key", N, 64, [4], "bf16"> {lostwax.alias = 1 : i64}) {
  %latent1 = "kv.append"(%latent, %c, %k_pe, %slots) : (!lostwax.cache<"latent", N, 64, [256, 2], "bf16">, !lostwax.tensor<[T, 256], bf16>, !lostwax.tensor<[T, 2], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [256, 2], "bf16">
  %index_key1 = "kv.append"(%index_key, %k, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16">
  %logits = "dsa.index_logits"(%q, %w, %index_key1, %positions, %q_starts, %page_table) <{scale = 5.000000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  %sel = "dsa.topk"(%logits) <{k = 32 : i64}> : (!lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 32], i32>
  %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %latent1, %sel, %positions, %q_starts, %page_table) <{scale = 5.000000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 256], bf16>, !lostwax.cache<"latent", N, 64, [256, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y, %latent1, %index_key1 : !lostwax.tensor<[T, 6], bf16>, !lostwax.cache<"latent", N, 64, [256, 2], "bf16">, !lostwax.cache<"index_key", N, 64, [4], "bf16">
}
