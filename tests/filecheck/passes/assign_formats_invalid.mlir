// RUN: lostwax opt --verify-diagnostics --passes=assign-formats{dtype=bf16} %s | filecheck %s

// CHECK: assign-formats: weight 'up.weight' of @f is stored as f4E2M1FN in blocks of 1 x 16 with f8E4M3FN scales under a f32; nothing reads that: dequantise the checkpoint
func.func @f(%w: !lostwax.tensor<[4, 16], bf16> {lostwax.weight = "up.weight", lostwax.stored = #lostwax.stored<f4E2M1FN, #lostwax.two_level_scale<16, f8E4M3FN, f32>>}) {
  func.return
}

// -----
// CHECK: assign-formats: weight 'up.weight' of @f is stored as f8E4M3FN with a f32 scale a row, which no op multiplies; give weights=dequantised
func.func @f(%w: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "up.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.channel_scale<f32>>}) {
  func.return
}

// -----
// Elementwise ops read no block scales, so a module that would need it does not pass.
// CHECK: after assign-formats: @f: core.silu_mul: operand 'gate' at position 0 does not verify:
// CHECK-NEXT: a tensor without block scales is needed
func.func @f(%w: !lostwax.tensor<[4, 8], bf16> {lostwax.weight = "up.weight", lostwax.stored = #lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>>}) -> !lostwax.tensor<[4, 8], bf16> {
  %y = "core.silu_mul"(%w, %w) : (!lostwax.tensor<[4, 8], bf16>, !lostwax.tensor<[4, 8], bf16>) -> !lostwax.tensor<[4, 8], bf16>
  func.return %y : !lostwax.tensor<[4, 8], bf16>
}
