// A whole module as capture makes it, hand-sized: embed, one dense block kind called twice, heads.
func.func @embed(%tokens: !lostwax.tensor<[T], i32> {lostwax.input = "tokens"},
    %table: !lostwax.tensor<[16, 8], bf16> {lostwax.weight = "model.embed_tokens.weight", lostwax.stored = #lostwax.stored<bf16>}
  ) -> (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) {
  %d = "core.embed"(%tokens, %table) : (!lostwax.tensor<[T], i32>, !lostwax.tensor<[16, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  %r = "core.zeros_like"(%d) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %d, %r : !lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>
}
func.func @dense(%delta: !lostwax.tensor<[T, 8], bf16> {lostwax.carry = "delta"},
    %residual: !lostwax.tensor<[T, 8], bf16> {lostwax.carry = "residual"},
    %positions: !lostwax.tensor<[T], i32> {lostwax.input = "positions"},
    %slots: !lostwax.tensor<[T], i32> {lostwax.input = "slots"},
    %q_starts: !lostwax.tensor<[B + 1], i32> {lostwax.input = "q_starts"},
    %page_table: !lostwax.tensor<[B, P], i32> {lostwax.input = "page_table"},
    %latent: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">,
    %index_key: !lostwax.cache<"index_key", N, 64, [4], "bf16">,
    %input_norm: !lostwax.tensor<[8], bf16> {lostwax.weight = "input_layernorm.weight", lostwax.stored = #lostwax.stored<bf16>},
    %q_a: !lostwax.tensor<[6, 8], bf16> {lostwax.weight = "self_attn.q_a_proj.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %q_a_norm: !lostwax.tensor<[6], bf16> {lostwax.weight = "self_attn.q_a_layernorm.weight", lostwax.stored = #lostwax.stored<bf16>},
    %q_b: !lostwax.tensor<[12, 6], bf16> {lostwax.weight = "self_attn.q_b_proj.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %kv_a: !lostwax.tensor<[8, 8], bf16> {lostwax.weight = "self_attn.kv_a_proj_with_mqa.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %kv_a_norm: !lostwax.tensor<[6], bf16> {lostwax.weight = "self_attn.kv_a_layernorm.weight", lostwax.stored = #lostwax.stored<bf16>},
    %kv_b: !lostwax.tensor<[14, 6], bf16> {lostwax.weight = "self_attn.kv_b_proj.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %o: !lostwax.tensor<[8, 6], bf16> {lostwax.weight = "self_attn.o_proj.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %wq_b: !lostwax.tensor<[8, 6], bf16> {lostwax.weight = "self_attn.indexer.wq_b.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %wk: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "self_attn.indexer.wk.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %k_norm: !lostwax.tensor<[4], f32> {lostwax.weight = "self_attn.indexer.k_norm.weight", lostwax.stored = #lostwax.stored<f32>},
    %k_bias: !lostwax.tensor<[4], f32> {lostwax.weight = "self_attn.indexer.k_norm.bias", lostwax.stored = #lostwax.stored<f32>},
    %iw: !lostwax.tensor<[2, 8], bf16> {lostwax.weight = "self_attn.indexer.weights_proj.weight", lostwax.stored = #lostwax.stored<bf16>},
    %post_norm: !lostwax.tensor<[8], bf16> {lostwax.weight = "post_attention_layernorm.weight", lostwax.stored = #lostwax.stored<bf16>},
    %gate: !lostwax.tensor<[10, 8], bf16> {lostwax.weight = "mlp.gate_proj.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %up: !lostwax.tensor<[10, 8], bf16> {lostwax.weight = "mlp.up_proj.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>},
    %down: !lostwax.tensor<[8, 10], bf16> {lostwax.weight = "mlp.down_proj.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}
  ) -> (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16"> {lostwax.alias = 6 : i64}, !lostwax.cache<"index_key", N, 64, [4], "bf16"> {lostwax.alias = 7 : i64}) {
  %s = "core.add"(%residual, %delta) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
  %residual1 = "core.cast"(%s) : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16>
  %x = "core.rms_norm"(%s, %input_norm) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  %qa = "quant.linear"(%x, %q_a) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[6, 8], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %qr = "core.rms_norm"(%qa, %q_a_norm) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[6], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %qf = "quant.linear"(%qr, %q_b) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[12, 6], bf16>) -> !lostwax.tensor<[T, 12], bf16>
  %qh = "core.reshape"(%qf) : (!lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 6], bf16>
  %q = "core.rope"(%qh, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 2, 6], bf16>
  %q_nope = "core.slice"(%q) <{axis = 2 : i64, start = 0 : i64, stop = 4 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
  %q_pe = "core.slice"(%q) <{axis = 2 : i64, start = 4 : i64, stop = 6 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 2], bf16>
  %kv = "quant.linear"(%x, %kv_a) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[8, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  %c0 = "core.slice"(%kv) <{axis = 1 : i64, start = 0 : i64, stop = 6 : i64}> : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %c = "core.rms_norm"(%c0, %kv_a_norm) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[6], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %pe0 = "core.slice"(%kv) <{axis = 1 : i64, start = 6 : i64, stop = 8 : i64}> : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 2], bf16>
  %k_pe = "core.rope"(%pe0, %positions) <{offset = 0 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 2], bf16>
  %latent1 = "kv.append"(%latent, %c, %k_pe, %slots) : (!lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 2], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"latent", N, 64, [6, 2], "bf16">
  %iq0 = "quant.linear"(%qr, %wq_b) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[8, 6], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  %iq1 = "core.reshape"(%iq0) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
  %iq = "core.rope"(%iq1, %positions) <{offset = 0 : i64, dim = 2 : i64, interleaved = false, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 2, 4], bf16>
  %ik0 = "quant.linear"(%x, %wk) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[4, 8], bf16>) -> !lostwax.tensor<[T, 4], bf16>
  %ik1 = "core.layer_norm"(%ik0, %k_norm, %k_bias) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[4], f32>, !lostwax.tensor<[4], f32>) -> !lostwax.tensor<[T, 4], bf16>
  %ik = "core.rope"(%ik1, %positions) <{offset = 0 : i64, dim = 2 : i64, interleaved = false, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 4], bf16>
  %index_key1 = "kv.append"(%index_key, %ik, %slots) : (!lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 4], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 64, [4], "bf16">
  %iw1 = "quant.linear"(%x, %iw) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[2, 8], bf16>) -> !lostwax.tensor<[T, 2], f32>
  %logits = "dsa.index_logits"(%iq, %iw1, %index_key1, %positions, %q_starts, %page_table) <{scale = 0.35355339059327379 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2], f32>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 64*P], f32>
  %sel = "dsa.topk"(%logits) <{k = 32 : i64}> : (!lostwax.tensor<[T, 64*P], f32>) -> !lostwax.tensor<[T, 32], i32>
  %o1 = "mla.attend"(%q_nope, %q_pe, %kv_b, %latent1, %sel, %positions, %q_starts, %page_table) <{scale = 0.76499999999999999 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  %a = "quant.linear"(%o1, %o) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[8, 6], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  %s2 = "core.add"(%residual1, %a) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
  %residual2 = "core.cast"(%s2) : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16>
  %y = "core.rms_norm"(%s2, %post_norm) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  %g = "quant.linear"(%y, %gate) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[10, 8], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %u = "quant.linear"(%y, %up) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[10, 8], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %m = "core.silu_mul"(%g, %u) : (!lostwax.tensor<[T, 10], bf16>, !lostwax.tensor<[T, 10], bf16>) -> !lostwax.tensor<[T, 10], bf16>
  %d = "quant.linear"(%m, %down) : (!lostwax.tensor<[T, 10], bf16>, !lostwax.tensor<[8, 10], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %d, %residual2, %latent1, %index_key1 : !lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.cache<"index_key", N, 64, [4], "bf16">
}
func.func @norm(%delta: !lostwax.tensor<[T, 8], bf16> {lostwax.carry = "delta"},
    %residual: !lostwax.tensor<[T, 8], bf16> {lostwax.carry = "residual"},
    %norm: !lostwax.tensor<[8], bf16> {lostwax.weight = "model.norm.weight", lostwax.stored = #lostwax.stored<bf16>}
  ) -> (!lostwax.tensor<[T, 8], bf16> {lostwax.state = "hidden"}) {
  %s = "core.add"(%residual, %delta) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
  %x = "core.rms_norm"(%s, %norm) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %x : !lostwax.tensor<[T, 8], bf16>
}
func.func @pick_head(%hidden: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"},
    %logit_rows: !lostwax.tensor<[R], i32> {lostwax.input = "logit_rows"},
    %temperature: !lostwax.tensor<[R], f32> {lostwax.input = "temperature"},
    %seeds: !lostwax.tensor<[R], i32> {lostwax.input = "seeds"},
    %counters: !lostwax.tensor<[R], i32> {lostwax.input = "counters"},
    %lm_head: !lostwax.tensor<[16, 8], bf16> {lostwax.weight = "lm_head.weight", lostwax.stored = #lostwax.stored<bf16>}
  ) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>) {
  %h = "core.gather_rows"(%hidden, %logit_rows) : (!lostwax.tensor<[S, 8], bf16>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 8], bf16>
  %logits = "quant.linear"(%h, %lm_head) : (!lostwax.tensor<[R, 8], bf16>, !lostwax.tensor<[16, 8], bf16>) -> !lostwax.tensor<[R, 16], f32>
  %ids, %lp = "sample.pick"(%logits, %temperature, %seeds, %counters) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>)
  func.return %ids, %lp : !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>
}
func.func @score_head(%hidden: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"},
    %logit_rows: !lostwax.tensor<[R], i32> {lostwax.input = "logit_rows"},
    %temperature: !lostwax.tensor<[R], f32> {lostwax.input = "temperature"},
    %seeds: !lostwax.tensor<[R], i32> {lostwax.input = "seeds"},
    %counters: !lostwax.tensor<[R], i32> {lostwax.input = "counters"},
    %targets: !lostwax.tensor<[R], i32> {lostwax.input = "targets"},
    %lm_head: !lostwax.tensor<[16, 8], bf16> {lostwax.weight = "lm_head.weight", lostwax.stored = #lostwax.stored<bf16>}
  ) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 20], i32>, !lostwax.tensor<[R, 20], f32>) {
  %h = "core.gather_rows"(%hidden, %logit_rows) : (!lostwax.tensor<[S, 8], bf16>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 8], bf16>
  %logits = "quant.linear"(%h, %lm_head) : (!lostwax.tensor<[R, 8], bf16>, !lostwax.tensor<[16, 8], bf16>) -> !lostwax.tensor<[R, 16], f32>
  %ids, %lp = "sample.pick"(%logits, %temperature, %seeds, %counters) : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>)
  %tl, %ti, %tp = "sample.score"(%logits, %targets) <{n = 20 : i64}> : (!lostwax.tensor<[R, 16], f32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 20], i32>, !lostwax.tensor<[R, 20], f32>)
  func.return %ids, %lp, %tl, %ti, %tp : !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 20], i32>, !lostwax.tensor<[R, 20], f32>
}
func.func @body(%tokens: !lostwax.tensor<[T], i32> {lostwax.input = "tokens"},
    %positions: !lostwax.tensor<[T], i32> {lostwax.input = "positions"},
    %slots: !lostwax.tensor<[T], i32> {lostwax.input = "slots"},
    %q_starts: !lostwax.tensor<[B + 1], i32> {lostwax.input = "q_starts"},
    %kv_lens: !lostwax.tensor<[B], i32> {lostwax.input = "kv_lens"},
    %page_table: !lostwax.tensor<[B, P], i32> {lostwax.input = "page_table"}
  ) -> (!lostwax.tensor<[T, 8], bf16> {lostwax.state = "hidden"}) {
  %d0, %r0 = core.call @embed(%tokens) layer 0 weights "" : (!lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>)
  %d1, %r1 = core.call @dense(%d0, %r0, %positions, %slots, %q_starts, %page_table) layer 0 weights "model.layers.0." : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>)
  %d2, %r2 = core.call @dense(%d1, %r1, %positions, %slots, %q_starts, %page_table) layer 1 weights "model.layers.1." : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>)
  %h = core.call @norm(%d2, %r2) layer 0 weights "" : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %h : !lostwax.tensor<[T, 8], bf16>
}
func.func @pick(%logit_rows: !lostwax.tensor<[R], i32> {lostwax.input = "logit_rows"},
    %temperature: !lostwax.tensor<[R], f32> {lostwax.input = "temperature"},
    %seeds: !lostwax.tensor<[R], i32> {lostwax.input = "seeds"},
    %counters: !lostwax.tensor<[R], i32> {lostwax.input = "counters"},
    %targets: !lostwax.tensor<[R], i32> {lostwax.input = "targets"},
    %hidden: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}
  ) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>) {
  %ids, %lp = core.call @pick_head(%hidden, %logit_rows, %temperature, %seeds, %counters) layer 0 weights "" : (!lostwax.tensor<[S, 8], bf16>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>)
  func.return %ids, %lp : !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>
}
func.func @score(%logit_rows: !lostwax.tensor<[R], i32> {lostwax.input = "logit_rows"},
    %temperature: !lostwax.tensor<[R], f32> {lostwax.input = "temperature"},
    %seeds: !lostwax.tensor<[R], i32> {lostwax.input = "seeds"},
    %counters: !lostwax.tensor<[R], i32> {lostwax.input = "counters"},
    %targets: !lostwax.tensor<[R], i32> {lostwax.input = "targets"},
    %hidden: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}
  ) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 20], i32>, !lostwax.tensor<[R, 20], f32>) {
  %ids, %lp, %tl, %ti, %tp = core.call @score_head(%hidden, %logit_rows, %temperature, %seeds, %counters, %targets) layer 0 weights "" : (!lostwax.tensor<[S, 8], bf16>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], i32>) -> (!lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 20], i32>, !lostwax.tensor<[R, 20], f32>)
  func.return %ids, %lp, %tl, %ti, %tp : !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], f32>, !lostwax.tensor<[R, 20], i32>, !lostwax.tensor<[R, 20], f32>
}

