// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Wrong ops of the `core` dialect: the message names the op and what is wrong.

// CHECK: @f: core.add: shapes differ: !lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 7], bf16>
func.func @f(%a: !lostwax.tensor<[T, 8], bf16>, %b: !lostwax.tensor<[T, 7], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.add"(%a, %b) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 7], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: @f: core.cast: a cast keeps the shape
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[B, 8], bf16> {
  %y = "core.cast"(%x) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[B, 8], bf16>
  func.return %y : !lostwax.tensor<[B, 8], bf16>
}

// -----
// CHECK: @f: core.zeros_like: the result has the operand's type
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32> {
  %y = "core.zeros_like"(%x) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
  func.return %y : !lostwax.tensor<[T, 8], f32>
}

// -----
// CHECK: @f: core.rms_norm: weight !lostwax.tensor<[7], bf16> does not fit the last axis
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>, %weight: !lostwax.tensor<[7], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.rms_norm"(%x, %weight) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[7], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: @f: core.layer_norm: weight !lostwax.tensor<[8], f32> or bias !lostwax.tensor<[7], f32> does not fit
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>, %weight: !lostwax.tensor<[8], f32>, %bias: !lostwax.tensor<[7], f32>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.layer_norm"(%x, %weight, %bias) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[8], f32>, !lostwax.tensor<[7], f32>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: @f: core.silu_mul: shapes differ
func.func @f(%gate: !lostwax.tensor<[T, 8], bf16>, %up: !lostwax.tensor<[B, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.silu_mul"(%gate, %up) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[B, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: @f: core.rope: one position a row is needed
func.func @f(%x: !lostwax.tensor<[T, 2, 6], bf16>, %positions: !lostwax.tensor<[B], i32>) -> !lostwax.tensor<[T, 2, 6], bf16> {
  %y = "core.rope"(%x, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 6], bf16>, !lostwax.tensor<[B], i32>) -> !lostwax.tensor<[T, 2, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 2, 6], bf16>
}

// -----
// CHECK: @f: core.rope: dims 4..6 do not lie in a row of 5
func.func @f(%x: !lostwax.tensor<[T, 5], bf16>, %positions: !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 5], bf16> {
  %y = "core.rope"(%x, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 5], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 5], bf16>
  func.return %y : !lostwax.tensor<[T, 5], bf16>
}

// -----
// CHECK: @f: core.rope: operand 'positions' at position 1 does not verify:
// CHECK-NEXT: a plain i32 tensor is needed
func.func @f(%x: !lostwax.tensor<[T, 2, 6], bf16>, %positions: !lostwax.tensor<[T], f32>) -> !lostwax.tensor<[T, 2, 6], bf16> {
  %y = "core.rope"(%x, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 6], bf16>, !lostwax.tensor<[T], f32>) -> !lostwax.tensor<[T, 2, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 2, 6], bf16>
}

// -----
// CHECK: @f: core.reshape: !lostwax.tensor<[T, 12], bf16> and !lostwax.tensor<[T, 2, 5], bf16> hold different numbers
func.func @f(%x: !lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 5], bf16> {
  %y = "core.reshape"(%x) : (!lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 5], bf16>
  func.return %y : !lostwax.tensor<[T, 2, 5], bf16>
}

// -----
// CHECK: @f: core.reshape: a view keeps the dtype
func.func @f(%x: !lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 6], f32> {
  %y = "core.reshape"(%x) : (!lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 6], f32>
  func.return %y : !lostwax.tensor<[T, 2, 6], f32>
}

// -----
// CHECK: @f: core.reshape: operand 'x' at position 0 does not verify:
// CHECK-NEXT: a tensor without block scales is needed
func.func @f(%x: !lostwax.tensor<[256, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[2048], f8E4M3FN> {
  %y = "core.reshape"(%x) : (!lostwax.tensor<[256, 8], f8E4M3FN, #lostwax.block_scale<128, 128, f32>>) -> !lostwax.tensor<[2048], f8E4M3FN>
  func.return %y : !lostwax.tensor<[2048], f8E4M3FN>
}

// -----
// CHECK: @f: core.slice: 4..7 does not lie in axis 2
func.func @f(%x: !lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 3], bf16> {
  %y = "core.slice"(%x) <{axis = 2 : i64, start = 4 : i64, stop = 7 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 3], bf16>
  func.return %y : !lostwax.tensor<[T, 2, 3], bf16>
}

// -----
// CHECK: @f: core.slice: 0..1 does not lie in axis 0
func.func @f(%x: !lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[1, 6], bf16> {
  %y = "core.slice"(%x) <{axis = 0 : i64, start = 0 : i64, stop = 1 : i64}> : (!lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[1, 6], bf16>
  func.return %y : !lostwax.tensor<[1, 6], bf16>
}

// -----
// CHECK: @f: core.slice: axis 2 is not one of
func.func @f(%x: !lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[1, 6], bf16> {
  %y = "core.slice"(%x) <{axis = 2 : i64, start = 0 : i64, stop = 1 : i64}> : (!lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[1, 6], bf16>
  func.return %y : !lostwax.tensor<[1, 6], bf16>
}

// -----
// CHECK: @f: core.embed: rows keep their dtype
func.func @f(%tokens: !lostwax.tensor<[T], i32>, %table: !lostwax.tensor<[16, 8], bf16>) -> !lostwax.tensor<[T, 8], f32> {
  %y = "core.embed"(%tokens, %table) : (!lostwax.tensor<[T], i32>, !lostwax.tensor<[16, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
  func.return %y : !lostwax.tensor<[T, 8], f32>
}

// -----
// CHECK: @f: core.gather_rows: result !lostwax.tensor<[T, 8], bf16> has a wrong shape
func.func @f(%x: !lostwax.tensor<[T, 8], bf16>, %rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.gather_rows"(%x, %rows) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// -----
// CHECK: @f: core.concat: the parts are 12 wide together
func.func @f(%a: !lostwax.tensor<[T, 8], bf16>, %b: !lostwax.tensor<[T, 4], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.concat"(%a, %b) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 4], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}
