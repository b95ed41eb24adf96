// RUN: lostwax opt --verify-diagnostics %s | filecheck %s
// Wrong ops of the `mla` dialect: the message names the op and what is wrong.

// CHECK: @f: mla.attend: kv_b !lostwax.tensor<[13, 6], bf16> does not give
func.func @f(%q_nope: !lostwax.tensor<[T, 2, 4], bf16>, %q_pe: !lostwax.tensor<[T, 2, 2], bf16>, %kv_b: !lostwax.tensor<[13, 6], bf16>, %cache: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %selection: !lostwax.tensor<[T, 32], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %cache, %selection, %positions, %q_starts, %page_table) <{scale = 7.650000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[13, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// -----
// CHECK: @f: mla.attend: cache rows (4,) do not fit kv_b
func.func @f(%q_nope: !lostwax.tensor<[T, 2, 4], bf16>, %q_pe: !lostwax.tensor<[T, 2, 2], bf16>, %kv_b: !lostwax.tensor<[14, 6], bf16>, %cache: !lostwax.cache<"index_key", N, 64, [4], "bf16">, %selection: !lostwax.tensor<[T, 32], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %cache, %selection, %positions, %q_starts, %page_table) <{scale = 7.650000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], bf16>, !lostwax.cache<"index_key", N, 64, [4], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// -----
// CHECK: @f: mla.attend: one selection and one position a row are needed
func.func @f(%q_nope: !lostwax.tensor<[T, 2, 4], bf16>, %q_pe: !lostwax.tensor<[T, 2, 2], bf16>, %kv_b: !lostwax.tensor<[14, 6], bf16>, %cache: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %selection: !lostwax.tensor<[B, 32], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B + 1], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %cache, %selection, %positions, %q_starts, %page_table) <{scale = 7.650000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[B, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B + 1], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}

// -----
// CHECK: @f: mla.attend: q_starts !lostwax.tensor<[B], i32> does not fit page_table
func.func @f(%q_nope: !lostwax.tensor<[T, 2, 4], bf16>, %q_pe: !lostwax.tensor<[T, 2, 2], bf16>, %kv_b: !lostwax.tensor<[14, 6], bf16>, %cache: !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, %selection: !lostwax.tensor<[T, 32], i32>, %positions: !lostwax.tensor<[T], i32>, %q_starts: !lostwax.tensor<[B], i32>, %page_table: !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16> {
  %y = "mla.attend"(%q_nope, %q_pe, %kv_b, %cache, %selection, %positions, %q_starts, %page_table) <{scale = 7.650000e-01 : f64}> : (!lostwax.tensor<[T, 2, 4], bf16>, !lostwax.tensor<[T, 2, 2], bf16>, !lostwax.tensor<[14, 6], bf16>, !lostwax.cache<"latent", N, 64, [6, 2], "bf16">, !lostwax.tensor<[T, 32], i32>, !lostwax.tensor<[T], i32>, !lostwax.tensor<[B], i32>, !lostwax.tensor<[B, P], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %y : !lostwax.tensor<[T, 6], bf16>
}
