// RUN: lostwax opt "--passes=specialise{segment=decode rows=4}" %s | filecheck %s --check-prefix=VERIFY
// RUN: lostwax opt --passes=specialise{segment=draft} %s | filecheck %s --check-prefix=DRAFT

// A decode body that verifies drafts has several rows a request, and leaves its hiddens.
// VERIFY-LABEL: func.func @norm(
// VERIFY-SAME: -> (!lostwax.tensor<[4*B, 8], bf16> {lostwax.state = "hidden"})
// VERIFY-LABEL: func.func @decode(
// VERIFY: %h = core.call @norm(
// VERIFY: func.return %h
// VERIFY-NOT: @draft(

// A draft body keeps T: the first takes all rows of the step before.
// DRAFT-NOT: @body
// DRAFT-LABEL: func.func @draft(
// DRAFT-SAME: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}
// DRAFT: core.call @layer(%hidden)
func.func @norm(%x: !lostwax.tensor<[T, 8], bf16> {lostwax.carry = "delta"}) -> (!lostwax.tensor<[T, 8], bf16> {lostwax.state = "hidden"}) {
  %h = "core.cast"(%x) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %h : !lostwax.tensor<[T, 8], bf16>
}
func.func @layer(%hidden: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}) -> (!lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}) {
  func.return %hidden : !lostwax.tensor<[S, 8], bf16>
}
func.func @body(%x: !lostwax.tensor<[T, 8], bf16>) -> (!lostwax.tensor<[T, 8], bf16> {lostwax.state = "hidden"}) {
  %h = core.call @norm(%x) layer 0 weights "" : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %h : !lostwax.tensor<[T, 8], bf16>
}
func.func @draft(%hidden: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}) -> (!lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}) {
  %h = core.call @layer(%hidden) layer 3 weights "" : (!lostwax.tensor<[S, 8], bf16>) -> !lostwax.tensor<[S, 8], bf16>
  func.return %h : !lostwax.tensor<[S, 8], bf16>
}
