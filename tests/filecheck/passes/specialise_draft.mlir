// RUN: lostwax opt "--passes=specialise{entry=decode rows=4 state=true}" %s | filecheck %s --check-prefix=VERIFY
// RUN: lostwax opt --passes=specialise{entry=decode} %s | filecheck %s --check-prefix=PLAIN
// RUN: lostwax opt --passes=specialise{entry=draft} %s | filecheck %s --check-prefix=DRAFT

// A decode step that verifies drafts has several rows a request, and leaves its hiddens.
// VERIFY-LABEL: func.func @head(
// VERIFY-SAME: -> (!lostwax.tensor<[4*B], i32>, !lostwax.tensor<[4*B, 8], bf16> {lostwax.state = "hidden"})
// VERIFY-LABEL: func.func @decode(
// VERIFY: %ids, %h = core.call @head(
// VERIFY: func.return %ids, %h
// VERIFY-NOT: @draft(

// Without drafts nothing outlives the step: neither the head nor its call gives the hiddens.
// PLAIN-LABEL: func.func @head(
// PLAIN-SAME: -> !lostwax.tensor<[B], i32>
// PLAIN: func.return %ids : !lostwax.tensor<[B], i32>
// PLAIN-LABEL: func.func @decode(
// PLAIN: %ids = core.call @head(%x, %rows)
// PLAIN: func.return %ids : !lostwax.tensor<[B], i32>
// PLAIN-NOT: @draft(

// A draft step keeps T: the first takes all rows of the step before.
// DRAFT-NOT: @step
// DRAFT-LABEL: func.func @draft(
// DRAFT-SAME: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}
// DRAFT: core.call @layer(%hidden)
func.func @head(%x: !lostwax.tensor<[T, 8], bf16> {lostwax.carry = "delta"}, %rows: !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T], i32>, !lostwax.tensor<[T, 8], bf16> {lostwax.state = "hidden"}) {
  %ids = "core.cast"(%rows) : (!lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T], i32>
  %h = "core.cast"(%x) : (!lostwax.tensor<[T, 8], bf16>) -> !lostwax.tensor<[T, 8], bf16>
  func.return %ids, %h : !lostwax.tensor<[T], i32>, !lostwax.tensor<[T, 8], bf16>
}
func.func @layer(%hidden: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}) -> (!lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}) {
  func.return %hidden : !lostwax.tensor<[S, 8], bf16>
}
func.func @step(%x: !lostwax.tensor<[T, 8], bf16>, %rows: !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T], i32>, !lostwax.tensor<[T, 8], bf16> {lostwax.state = "hidden"}) {
  %ids, %h = core.call @head(%x, %rows) layer 0 weights "" : (!lostwax.tensor<[T, 8], bf16>, !lostwax.tensor<[T], i32>) -> (!lostwax.tensor<[T], i32>, !lostwax.tensor<[T, 8], bf16>)
  func.return %ids, %h : !lostwax.tensor<[T], i32>, !lostwax.tensor<[T, 8], bf16>
}
func.func @draft(%hidden: !lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}) -> (!lostwax.tensor<[S, 8], bf16> {lostwax.state = "hidden"}) {
  %h = core.call @layer(%hidden) layer 3 weights "" : (!lostwax.tensor<[S, 8], bf16>) -> !lostwax.tensor<[S, 8], bf16>
  func.return %h : !lostwax.tensor<[S, 8], bf16>
}
