// RUN: lostwax opt --passes=shard{tp=2},localise %s | filecheck %s
// One rank's shapes; a value that is needed whole is joined once, behind the op that makes it.

// CHECK: builtin.module attributes {lostwax.mesh = {tp = 2 : i64}, lostwax.local}
// CHECK-LABEL: func.func @attention(
// CHECK-SAME: %q_b: !lostwax.tensor<[6, 6], bf16> {lostwax.weight = "q_b", lostwax.shard = #dist.split<"tp", 0>}
// CHECK-SAME: %kv_b: !lostwax.tensor<[7, 6], bf16>
// CHECK-SAME: %o: !lostwax.tensor<[8, 3], bf16>
// CHECK: "quant.linear"(%qr, %q_b) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[6, 6], bf16>) -> !lostwax.tensor<[T, 6], bf16>
// CHECK: "core.reshape"(%qf) : (!lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[T, 1, 6], bf16>
// CHECK: "mla.attend"
// CHECK-SAME: -> !lostwax.tensor<[T, 3], bf16>
// Summands stay f32 until their sum is rounded.
// CHECK: %y = "quant.linear"(%a, %o) : (!lostwax.tensor<[T, 3], bf16>, !lostwax.tensor<[8, 3], bf16>) -> !lostwax.tensor<[T, 8], f32>
// CHECK-NEXT: [[SUM:%[0-9a-z]+]] = "dist.all_reduce"(%y) <{over = "tp", ranks = 2 : i64}> : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16>
// CHECK-NEXT: func.return [[SUM]]
// CHECK-LABEL: func.func @gated(
// CHECK: "core.silu_mul"(%g, %u) : (!lostwax.tensor<[T, 5], bf16>, !lostwax.tensor<[T, 5], bf16>) -> !lostwax.tensor<[T, 5], bf16>
// CHECK: "dist.all_reduce"
// Routed and shared experts are summed before the ranks are: one exchange, not two.
// CHECK-LABEL: func.func @experts(
// CHECK: "moe.experts"
// CHECK-SAME: !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 3, 8], bf16>, !lostwax.tensor<[4, 8, 3], bf16>
// CHECK-NOT: dist.
// CHECK: %y = "core.add"(%r, %s) : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], f32>
// CHECK: "dist.all_reduce"(%y)
// CHECK-LABEL: func.func @head12(
// CHECK: "quant.linear"(%x, %w) : (!lostwax.tensor<[R, 8], bf16>, !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[R, 6], f32>
// CHECK-NEXT: "dist.all_gather"(%l) <{over = "tp", ranks = 2 : i64, axis = 1 : i64}> : (!lostwax.tensor<[R, 6], f32>) -> !lostwax.tensor<[R, 12], f32>
// CHECK-LABEL: func.func @head13(
// CHECK-NOT: dist.
func.func @attention(%qr: !lostwax.tensor<[T, 6], bf16>, %selection: !lostwax.tensor<[T, 4], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>, %latent: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %q_b: !lostwax.tensor<[12, 6], bf16> {lostwax.weight = "q_b"}, %kv_b: !lostwax.tensor<[14, 6], bf16> {lostwax.weight = "kv_b"}, %o: !lostwax.tensor<[8, 6], bf16> {lostwax.weight = "o"}) -> !lostwax.tensor<[T, 8], bf16> {
  %qf = "quant.linear"(%qr, %q_b) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[12, 6], bf16>) -> !lostwax.tensor<[T, 12], bf16>
  %qh = "core.reshape"(%qf) : (!lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 6], bf16>
  %q = "core.rope"(%qh, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 2, 6], bf16>
  %q_nope = "core.slice"(%q) <{axis = 2 : i64, start = 0 : i64, stop = 4 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
  %q_pe = "core.slice"(%q) <{axis = 2 : i64, start = 4 : i64, stop = 6 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 2], bf16>
  %a = "mla.attend"(%q_nope, %q_pe, %kv_b, %latent, %selection, %positions, %q_starts, %page_table) <{scale = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 4], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  %y = "quant.linear"(%a, %o) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[8, 6], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}
func.func @gated(%x: !lostwax.tensor<[T, 8], bf16>, %gate: !lostwax.tensor<[10, 8], bf16> {lostwax.weight = "gate"}, %up: !lostwax.tensor<[10, 8], bf16> {lostwax.weight = "up"}, %down: !lostwax.tensor<[8, 10], bf16> {lostwax.weight = "down"}) -> !lostwax.tensor<[T, 8], bf16> {
  %g = "quant.linear"(%x, %gate) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[10, 8], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %u = "quant.linear"(%x, %up) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[10, 8], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %h = "core.silu_mul"(%g, %u) : (!lostwax.tensor<[T, 10], bf16>, !lostwax.tensor<[T, 10], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %y = "quant.linear"(%h, %down) : (!lostwax.tensor<[T, 10], bf16>, !lostwax.tensor<[8, 10], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}
func.func @experts(%x: !lostwax.tensor<[T, 8], bf16>, %ids: !lostwax.tensor<[T, 2], i32>, %w: !lostwax.tensor<[T, 2], f32>, %gate: !lostwax.tensor<[4, 6, 8], bf16> {lostwax.weight = "gate"}, %up: !lostwax.tensor<[4, 6, 8], bf16> {lostwax.weight = "up"}, %down: !lostwax.tensor<[4, 8, 6], bf16> {lostwax.weight = "down"}, %sg: !lostwax.tensor<[10, 8], bf16> {lostwax.weight = "sg"}, %su: !lostwax.tensor<[10, 8], bf16> {lostwax.weight = "su"}, %sd: !lostwax.tensor<[8, 10], bf16> {lostwax.weight = "sd"}) -> !lostwax.tensor<[T, 8], bf16> {
  %r = "moe.experts"(%x, %ids, %w, %gate, %up, %down) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>, !lostwax.tensor<[4, 6, 8], bf16>, !lostwax.tensor<[4, 6, 8], bf16>, !lostwax.tensor<[4, 8, 6], bf16>) -> !lostwax.tensor<[T, 8], f32>
  %g = "quant.linear"(%x, %sg) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[10, 8], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %u = "quant.linear"(%x, %su) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[10, 8], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %h = "core.silu_mul"(%g, %u) : (!lostwax.tensor<[T, 10], bf16>, !lostwax.tensor<[T, 10], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %s = "quant.linear"(%h, %sd) : (!lostwax.tensor<[T, 10], bf16>, !lostwax.tensor<[8, 10], bf16>) -> !lostwax.tensor<[T, 8], f32>
  %y = "core.add"(%r, %s) : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}
func.func @head12(%x: !lostwax.tensor<[R, 8], bf16>, %t: !lostwax.tensor<[R], f32>, %s: !lostwax.tensor<[R], i32>, %c: !lostwax.tensor<[R], i32>, %w: !lostwax.tensor<[12, 8], bf16> {lostwax.weight = "lm_head"}) -> !lostwax.tensor<[R], i32> {
  %l = "quant.linear"(%x, %w) : (!lostwax.tensor<[R, 8], bf16>, !lostwax.tensor<[12, 8], bf16>) -> !lostwax.tensor<[R, 12], f32>
  %ids, %p = "sample.pick"(%l, %t, %s, %c) : (!lostwax.tensor<[R, 12], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>)
  func.return %ids : !lostwax.tensor<[R], i32>
}
func.func @head13(%x: !lostwax.tensor<[R, 8], bf16>, %t: !lostwax.tensor<[R], f32>, %s: !lostwax.tensor<[R], i32>, %c: !lostwax.tensor<[R], i32>, %w: !lostwax.tensor<[13, 8], bf16> {lostwax.weight = "lm_head"}) -> !lostwax.tensor<[R], i32> {
  %l = "quant.linear"(%x, %w) : (!lostwax.tensor<[R, 8], bf16>, !lostwax.tensor<[13, 8], bf16>) -> !lostwax.tensor<[R, 13], f32>
  %ids, %p = "sample.pick"(%l, %t, %s, %c) : (!lostwax.tensor<[R, 13], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>)
  func.return %ids : !lostwax.tensor<[R], i32>
}
func.func @whole(%x: !lostwax.tensor<[T, 8], bf16>, %positions: !lostwax.tensor<[T], i32>, %q_a: !lostwax.tensor<[6, 8], bf16> {lostwax.weight = "q_a"}, %n: !lostwax.tensor<[6], bf16> {lostwax.weight = "n"}, %router: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "router"}, %bias: !lostwax.tensor<[4], f32> {lostwax.weight = "bias"}) -> (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 2], i32>) {
  %a = "quant.linear"(%x, %q_a) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %qr = "core.rms_norm"(%a, %n) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[6], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %l = "quant.linear"(%x, %router) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[4, 8], bf16>) -> !lostwax.tensor<[T, 4], f32>
  %ids, %w = "moe.route"(%l, %bias, %positions) <{top_k = 2 : i64, n_group = 1 : i64, topk_group = 1 : i64, normalise = true, scale = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 4], f32>, !lostwax.tensor<[4], f32>, !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 2], i32>, !lostwax.tensor<[T, 2], f32>)
  func.return %qr, %ids : !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 2], i32>
}
