// RUN: lostwax opt --verify-diagnostics --passes=shard{tp=2} %s | filecheck %s

// CHECK: shard: the 3 heads of !lostwax.tensor<[T, 3, 6], bf16> in @attention do not divide over tp=2; choose a tp that divides them
func.func @attention(%qr: !lostwax.tensor<[T, 6], bf16>, %selection: !lostwax.tensor<[T, 4], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>, %latent: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %q_b: !lostwax.tensor<[18, 6], bf16> {lostwax.weight = "q_b"}, %kv_b: !lostwax.tensor<[21, 6], bf16> {lostwax.weight = "kv_b"}, %o: !lostwax.tensor<[8, 9], bf16> {lostwax.weight = "o"}) -> !lostwax.tensor<[T, 8], bf16> {
  %qf = "quant.linear"(%qr, %q_b) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[18, 6], bf16>) -> !lostwax.tensor<[T, 18], bf16>
  %qh = "core.reshape"(%qf) : (!lostwax.tensor<[T, 18], bf16>) -> !lostwax.tensor<[T, 3, 6], bf16>
  %q = "core.rope"(%qh, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 3, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 3, 6], bf16>
  %q_nope = "core.slice"(%q) <{axis = 2 : i64, start = 0 : i64, stop = 4 : i64}> : (!lostwax.tensor<[T, 3, 6], bf16>) -> !lostwax.tensor<[T, 3, 4], bf16>
  %q_pe = "core.slice"(%q) <{axis = 2 : i64, start = 4 : i64, stop = 6 : i64}> : (!lostwax.tensor<[T, 3, 6], bf16>) -> !lostwax.tensor<[T, 3, 2], bf16>
  %a = "mla.attend"(%q_nope, %q_pe, %kv_b, %latent, %selection, %positions, %q_starts, %page_table) <{scale = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 3, 4], bf16>, !lostwax.tensor<[T, 3, 2], bf16>, !lostwax.tensor<[21, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 4], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 9], bf16>
  %y = "quant.linear"(%a, %o) : (!lostwax.tensor<[T, 9], bf16>, !lostwax.tensor<[8, 9], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: shard: axis 0 of weight 'gate' of @gated has 9 elements, which do not divide over tp=2; choose a tp that divides them
func.func @gated(%x: !lostwax.tensor<[T, 8], bf16>, %gate: !lostwax.tensor<[9, 8], bf16> {lostwax.weight = "gate"}, %up: !lostwax.tensor<[9, 8], bf16> {lostwax.weight = "up"}, %down: !lostwax.tensor<[8, 9], bf16> {lostwax.weight = "down"}) -> !lostwax.tensor<[T, 8], bf16> {
  %g = "quant.linear"(%x, %gate) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[9, 8], bf16>) -> !lostwax.tensor<[T, 9], bf16>
  %u = "quant.linear"(%x, %up) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[9, 8], bf16>) -> !lostwax.tensor<[T, 9], bf16>
  %h = "core.silu_mul"(%g, %u) : (!lostwax.tensor<[T, 9], bf16>, !lostwax.tensor<[T, 9], bf16>) -> !lostwax.tensor<[T, 9], bf16>
  %y = "quant.linear"(%h, %down) : (!lostwax.tensor<[T, 9], bf16>, !lostwax.tensor<[8, 9], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: shard: axis 1 of weight 'o' of @attention has slices of 3 elements, which cut its scale blocks of 4
func.func @attention(%qr: !lostwax.tensor<[T, 6], bf16>, %selection: !lostwax.tensor<[T, 4], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>, %latent: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %q_b: !lostwax.tensor<[12, 6], bf16> {lostwax.weight = "q_b"}, %kv_b: !lostwax.tensor<[14, 6], bf16> {lostwax.weight = "kv_b"}, %o: !lostwax.tensor<[8, 6], f8E4M3FN, #lostwax.block_scale<4, 4, f32>> {lostwax.weight = "o"}) -> !lostwax.tensor<[T, 8], bf16> {
  %qf = "quant.linear"(%qr, %q_b) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[12, 6], bf16>) -> !lostwax.tensor<[T, 12], bf16>
  %qh = "core.reshape"(%qf) : (!lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 6], bf16>
  %q = "core.rope"(%qh, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 2, 6], bf16>
  %q_nope = "core.slice"(%q) <{axis = 2 : i64, start = 0 : i64, stop = 4 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
  %q_pe = "core.slice"(%q) <{axis = 2 : i64, start = 4 : i64, stop = 6 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 2], bf16>
  %a = "mla.attend"(%q_nope, %q_pe, %kv_b, %latent, %selection, %positions, %q_starts, %page_table) <{scale = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 4], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  %y = "quant.linear"(%a, %o) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[8, 6], f8E4M3FN, #lostwax.block_scale<4, 4, f32>>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: shard: the module is sharded already; shard it once
builtin.module attributes {lostwax.mesh = {tp = 2 : i64}} {
}
