// RUN: lostwax opt %s | filecheck %s
// Every op and attribute of the `dist` dialect prints as it was written.

// CHECK-LABEL: func.func @all_reduce(
// CHECK-SAME: lostwax.shard = #dist.split<"tp", 0>
// CHECK: %y = "dist.all_reduce"(%x) <{over = "tp", ranks = 2 : i64}> {how = #dist.partial<"tp">} : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16>
func.func @all_reduce(%x: !lostwax.tensor<[T, 8], f32>, %w: !lostwax.tensor<[4, 8], bf16> {lostwax.shard = #dist.split<"tp", 0>}) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "dist.all_reduce"(%x) <{over = "tp", ranks = 2 : i64}> {how = #dist.partial<"tp">} : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %y : !lostwax.tensor<[T, 8], bf16>
}

// CHECK-LABEL: func.func @all_gather(
// CHECK: %y = "dist.all_gather"(%x) <{over = "tp", ranks = 4 : i64, axis = 1 : i64}> : (!lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 12], f32>
func.func @all_gather(%x: !lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 12], f32> {
  %y = "dist.all_gather"(%x) <{over = "tp", ranks = 4 : i64, axis = 1 : i64}> : (!lostwax.tensor<[R, 3], f32>) -> !lostwax.tensor<[R, 12], f32>
  func.return %y : !lostwax.tensor<[R, 12], f32>
}
