// RUN: lostwax opt --passes=clean-up %s | filecheck %s

// Without an entry every block kind stays; equal ops and casts that change nothing stay as well,
// because lowerings match them: no pass merges or folds for speed.
// CHECK-LABEL: func.func @alone(
// CHECK-NEXT: %a = "core.cast"(%x)
// CHECK-NEXT: %b = "core.cast"(%x)
// CHECK-NEXT: func.return %a, %b
func.func @alone(%x: !lostwax.tensor<[T, 8], f32>) -> (!lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[T, 8], f32>) {
  %a = "core.cast"(%x) : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], f32>
  %b = "core.cast"(%x) : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], f32>
  func.return %a, %b : !lostwax.tensor<[T, 8], f32>, !lostwax.tensor<[T, 8], f32>
}
