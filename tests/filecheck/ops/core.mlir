// RUN: lostwax opt %s | filecheck %s
// Every op of the `core` dialect prints as it was written.

// CHECK-LABEL: func.func @add(
// CHECK: %y = "core.add"(%a, %b) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
func.func @add(%a: !lostwax.tensor<[T, 8], bf16>, %b: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32> {
  %y = "core.add"(%a, %b) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], f32>
  func.return %y : !lostwax.tensor<[T, 8], f32>
}

// CHECK-LABEL: func.func @cast(
// CHECK: %y = "core.cast"(%x) : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16>
func.func @cast(%x: !lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.cast"(%x) : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// CHECK-LABEL: func.func @zeros_like(
// CHECK: %y = "core.zeros_like"(%x) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
func.func @zeros_like(%x: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.zeros_like"(%x) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// CHECK-LABEL: func.func @rms_norm(
// CHECK: %y = "core.rms_norm"(%x, %weight) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
func.func @rms_norm(%x: !lostwax.tensor<[T, 8], f32>, %weight: !lostwax.tensor<[8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.rms_norm"(%x, %weight) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// CHECK-LABEL: func.func @layer_norm(
// CHECK: %y = "core.layer_norm"(%x, %weight, %bias) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[8], f32>, !lostwax.tensor<[8], f32>) -> !lostwax.tensor<[T, 8], bf16>
func.func @layer_norm(%x: !lostwax.tensor<[T, 8], bf16>, %weight: !lostwax.tensor<[8], f32>, %bias: !lostwax.tensor<[8], f32>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.layer_norm"(%x, %weight, %bias) <{eps = 1.000000e-06 : f64}> : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[8], f32>, !lostwax.tensor<[8], f32>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// CHECK-LABEL: func.func @silu_mul(
// CHECK: %y = "core.silu_mul"(%gate, %up) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
func.func @silu_mul(%gate: !lostwax.tensor<[T, 8], bf16>, %up: !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.silu_mul"(%gate, %up) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// CHECK-LABEL: func.func @rope(
// CHECK: %y = "core.rope"(%x, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 2, 6], bf16>
func.func @rope(%x: !lostwax.tensor<[T, 2, 6], bf16>, %positions: !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 2, 6], bf16> {
  %y = "core.rope"(%x, %positions) <{offset = 4 : i64, dim = 2 : i64, interleaved = true, theta = 1.000000e+04 : f64, factor = 4.000000e+01 : f64, original_len = 4096 : i64, beta_fast = 3.200000e+01 : f64, beta_slow = 1.000000e+00 : f64, magnitude = 1.000000e+00 : f64}> : (!lostwax.tensor<[T, 2, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 2, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 2, 6], bf16>
}

// CHECK-LABEL: func.func @reshape(
// CHECK: %y = "core.reshape"(%x) : (!lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 6], bf16>
func.func @reshape(%x: !lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 6], bf16> {
  %y = "core.reshape"(%x) : (!lostwax.tensor<[T, 12], bf16>) -> !lostwax.tensor<[T, 2, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 2, 6], bf16>
}

// CHECK-LABEL: func.func @slice(
// CHECK: %y = "core.slice"(%x) <{axis = 2 : i64, start = 0 : i64, stop = 4 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
func.func @slice(%x: !lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16> {
  %y = "core.slice"(%x) <{axis = 2 : i64, start = 0 : i64, stop = 4 : i64}> : (!lostwax.tensor<[T, 2, 6], bf16>) -> !lostwax.tensor<[T, 2, 4], bf16>
  func.return %y : !lostwax.tensor<[T, 2, 4], bf16>
}

// CHECK-LABEL: func.func @embed(
// CHECK: %y = "core.embed"(%tokens, %table) : (!lostwax.tensor<[T], i32>, !lostwax.tensor<[16, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
func.func @embed(%tokens: !lostwax.tensor<[T], i32>, %table: !lostwax.tensor<[16, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.embed"(%tokens, %table) : (!lostwax.tensor<[T], i32>, !lostwax.tensor<[16, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// CHECK-LABEL: func.func @gather_rows(
// CHECK: %y = "core.gather_rows"(%x, %rows) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 8], bf16>
func.func @gather_rows(%x: !lostwax.tensor<[T, 8], bf16>, %rows: !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 8], bf16> {
  %y = "core.gather_rows"(%x, %rows) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[R], i32>) -> !lostwax.tensor<[R, 8], bf16>
  func.return %y : !lostwax.tensor<[R, 8], bf16>
}

// CHECK-LABEL: func.func @concat(
// CHECK: %y = "core.concat"(%a, %b) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 4], bf16>) -> !lostwax.tensor<[T, 12], bf16>
func.func @concat(%a: !lostwax.tensor<[T, 8], bf16>, %b: !lostwax.tensor<[T, 4], bf16>) -> !lostwax.tensor<[T, 12], bf16> {
  %y = "core.concat"(%a, %b) : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T, 4], bf16>) -> !lostwax.tensor<[T, 12], bf16>
  func.return %y : !lostwax.tensor<[T, 12], bf16>
}
