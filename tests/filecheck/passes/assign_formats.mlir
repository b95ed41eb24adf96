// RUN: lostwax opt --passes=assign-formats{dtype=f32} %s | filecheck %s --check-prefix=F32
// RUN: lostwax opt --passes=assign-formats{dtype=bf16} %s | filecheck %s --check-prefix=STORED
// RUN: lostwax opt "--passes=assign-formats{dtype=bf16 weights=dequantised}" %s | filecheck %s --check-prefix=PLAIN

// f32 reaches arguments, results, caches, calls; ids and what was f32 stay. No scales are left.
// F32-LABEL: func.func @block(
// F32-SAME: %x: !lostwax.tensor<[T, 8], f32>, %slots: !lostwax.tensor<[T], i32>, %index_key: !lostwax.cache<"index_key", N, 64, [4], "f32">
// F32-SAME: %w: !lostwax.tensor<[4, 8], f32> {lostwax.weight = "wk.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}
// F32-SAME: %n: !lostwax.tensor<[4], f32>
// F32-SAME: %b: !lostwax.tensor<[4], f32>
// F32-SAME: -> (!lostwax.tensor<[T, 4], f32>, !lostwax.cache<"index_key", N, 64, [4], "f32"> {lostwax.alias = 2 : i64})
// F32: %y = "quant.linear"(%x, %w) : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[4, 8], f32>) -> !lostwax.tensor<[T, 4], f32>
// F32: %c = "core.cast"(%z) : (!lostwax.tensor<[T, 4], f32>) -> !lostwax.tensor<[T, 4], f32>
// F32: core.call @block(%x, %slots) layer 0 : i64 weights "" : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 4], f32>
// F32-NOT: bf16>

// bf16 gives block-scaled weights their stored type; plain weights keep the nominal one.
// STORED-LABEL: func.func @block(
// STORED-SAME: %x: !lostwax.tensor<[T, 8], bf16>
// STORED-SAME: !lostwax.cache<"index_key", N, 64, [4], "bf16">
// STORED-SAME: %w: !lostwax.tensor<[4, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>
// STORED-SAME: %n: !lostwax.tensor<[4], bf16> {lostwax.weight = "norm.weight", lostwax.stored = #lostwax.stored<f32>}
// STORED-SAME: %b: !lostwax.tensor<[4], f32>
// STORED: %y = "quant.linear"(%x, %w) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[4, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[T, 4], bf16>

// dequantised leaves the nominal module as it was: nothing changes.
// PLAIN-LABEL: func.func @block(
// PLAIN-SAME: %w: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "wk.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}
// PLAIN-NOT: block_scale
func.func @block(%x: !lostwax.tensor<[T, 8], bf16>, %slots: !lostwax.tensor<[T], i32>, %index_key: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %w: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "wk.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}, %n: !lostwax.tensor<[4], bf16> {lostwax.weight = "norm.weight", lostwax.stored = #lostwax.stored<f32>}, %b: !lostwax.tensor<[4], f32> {lostwax.weight = "norm.bias", lostwax.stored = #lostwax.stored<bf16>}) -> (!lostwax.tensor<[T, 4], bf16>, !lostwax.cache<"index_key", N, 64, [4], "bf16"> {lostwax.alias = 2 : i64}) {
  %y = "quant.linear"(%x, %w) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[4, 8], bf16>) -> !lostwax.tensor<[T, 4], bf16>
  %z = "core.layer_norm"(%y, %n, %b) <{eps = 1.0e-06 : f64}> : (!lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[4], bf16>, !lostwax.tensor<[4], f32>) -> !lostwax.tensor<[T, 4], f32>
  %c = "core.cast"(%z) : (!lostwax.tensor<[T, 4], f32>) -> !lostwax.tensor<[T, 4], bf16>
  %new = "kv.append"(%index_key, %c, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16">
  func.return %c, %new : !lostwax.tensor<[T, 4], bf16>, !lostwax.cache<"index_key", N, 64, [4], "bf16">
}
func.func @step(%x: !lostwax.tensor<[T, 8], bf16>, %slots: !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 4], bf16> {
  %y = core.call @block(%x, %slots) layer 0 weights "" : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 4], bf16>
  func.return %y : !lostwax.tensor<[T, 4], bf16>
}
