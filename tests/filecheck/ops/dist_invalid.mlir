// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Wrong ops of the `dist` dialect: the message names the op and what is wrong.

// CHECK: @f: dist.all_reduce: a sum keeps the shape
func.func @f(%x: !lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 16], f32> {
  %y = "dist.all_reduce"(%x) <{over = "tp", ranks = 2 : i64}> : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 16], f32>
  func.return %y : !lostwax.tensor<[T, 16], f32>
}

// -----
// CHECK: @f: dist.all_reduce: 1 ranks exchange nothing
func.func @f(%x: !lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], f32> {
  %y = "dist.all_reduce"(%x) <{over = "tp", ranks = 1 : i64}> : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], f32>
  func.return %y : !lostwax.tensor<[T, 8], f32>
}

// -----
// CHECK: @f: dist.all_gather: result !lostwax.tensor<[R, 8], f32> has a wrong shape
func.func @f(%x: !lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 8], f32> {
  %y = "dist.all_gather"(%x) <{over = "tp", ranks = 2 : i64, axis = 1 : i64}> : (!lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 8], f32>
  func.return %y : !lostwax.tensor<[R, 8], f32>
}

// -----
// CHECK: @f: dist.all_gather: axis 2 is not one of !lostwax.tensor<[R, 3], f32>
func.func @f(%x: !lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 6], f32> {
  %y = "dist.all_gather"(%x) <{over = "tp", ranks = 2 : i64, axis = 2 : i64}> : (!lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 6], f32>
  func.return %y : !lostwax.tensor<[R, 6], f32>
}

// -----
// CHECK: @f: dist.all_gather: slices keep their dtype
func.func @f(%x: !lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 6], bf16> {
  %y = "dist.all_gather"(%x) <{over = "tp", ranks = 2 : i64, axis = 1 : i64}> : (!lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 6], bf16>
  func.return %y : !lostwax.tensor<[R, 6], bf16>
}
