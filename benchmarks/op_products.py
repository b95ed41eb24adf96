"""Products with fp8 weights, merged as the planner does, beside DeepGEMM's call for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from fp8_cases import EPS, draw, product_of, quantised, rotation, wide_of
from op_grid import OpCase, PlannedOp
from op_memory import Given, Tensors
from op_trial import Peer, Peers, Trial, count_sets, step_inputs

from lostwax.backends.runtime.form_weight import SourceTensors

_A, _M, _S = "self_attn.", "mlp.", "mlp.shared_experts."
HEADS, HEAD, INDEX_HEADS, INDEX = 128, 192, 64, 128
CALLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "projections": ((f"{_A}q_a_proj", f"{_A}kv_a_proj_with_mqa"), (f"{_A}indexer.wk",)),
    "queries": ((f"{_A}q_b_proj",), (f"{_A}indexer.wq_b",)),
    "o": ((f"{_A}o_proj",),),
    "dense gate_up": ((f"{_M}gate_proj", f"{_M}up_proj"),),
    "dense down": ((f"{_M}down_proj",),),
    "shared gate_up": ((f"{_S}gate_proj", f"{_S}up_proj"),),
    "shared down": ((f"{_S}down_proj",),),
}
"""What the peer multiplies at once: weights behind one another."""
BOUND, GATED_BOUND, ROUNDED_BOUND = 3e-3, 5e-3, 4e-2
SHAPES = {
    f"{_A}q_a_proj": (1536, 7168), f"{_A}kv_a_proj_with_mqa": (576, 7168),
    f"{_A}indexer.wk": (128, 7168), f"{_A}q_b_proj": (24576, 1536),
    f"{_A}indexer.wq_b": (8192, 1536), f"{_A}o_proj": (7168, 16384),
    f"{_M}gate_proj": (18432, 7168), f"{_M}up_proj": (18432, 7168), f"{_M}down_proj": (7168, 18432),
    f"{_S}gate_proj": (2048, 7168), f"{_S}up_proj": (2048, 7168), f"{_S}down_proj": (7168, 2048),
}  # fmt: skip


def multiply(
    peer: Any, x: tuple[torch.Tensor, torch.Tensor], joined: SourceTensors
) -> tuple[Callable[[], None], torch.Tensor]:
    """DeepGEMM's product of rows by a weight, and where it writes; scales lie as it reads them."""
    values, scales = x
    out = torch.empty(
        values.shape[0], joined.values.shape[0], dtype=torch.bfloat16, device=values.device
    )
    lying = peer.get_mn_major_tma_aligned_tensor(scales)
    weight = (joined.values, joined.scales)

    def run() -> None:
        peer.fp8_gemm_nt((values, lying), weight, out)

    return run, out


class Products:
    """Keeps the weights of one op for all its sizes."""

    def __init__(self) -> None:
        self._op = ""
        self._joined: list[list[SourceTensors]] = []

    def _draw(self, case: OpCase) -> None:
        """A set: what each of the peer's calls reads, behind one another."""
        if case.op == self._op:
            return
        self._op, self._joined = case.op, []
        sizes = [
            (sum(SHAPES[n][0] for n in names), SHAPES[names[0]][1]) for names in CALLS[case.op]
        ]
        for seed in range(count_sets(sum(n * k for n, k in sizes))):
            torch.manual_seed(seed)
            self._joined.append(
                [
                    SourceTensors(
                        draw("weight", (n, k), "f8E4M3FN"),
                        draw("weight:scale", (-(-n // 128), k // 128), "f32"),
                    )
                    for n, k in sizes
                ]
            )

    def _weights(self, op: PlannedOp, joined: Sequence[SourceTensors]) -> dict[str, SourceTensors]:
        """Each weight by its name; those of norms are drawn."""
        found: dict[str, SourceTensors] = {}
        for names, (values, scales) in zip(CALLS[op.case.op], joined, strict=True):
            assert scales is not None
            row = block = 0
            for name in names:
                rows = SHAPES[name][0]
                blocks = -(-rows // 128)
                part = values[row : row + rows], scales[block : block + blocks]
                found[f"{name}.weight"] = SourceTensors(*part)
                row, block = row + rows, block + blocks
        torch.manual_seed(99)
        for name in op.weights:
            if name not in found:
                view = op.inputs[name]
                drawn = torch.rand(view.shape, device="cuda") + 0.5
                kind = torch.float32 if view.dtype == "f32" else torch.bfloat16
                found[name] = SourceTensors(drawn.to(kind))
        return found

    def open(self, op: PlannedOp, peers: Peers) -> Trial:
        """Rows of random numbers; the peer gets them rounded where ours are bf16."""
        case = op.case
        self._draw(case)
        torch.manual_seed(case.rows)
        k = SHAPES[CALLS[case.op][0][0]][1]
        values: Tensors = step_inputs(case, torch.device("cuda"))
        values["positions"] = torch.zeros_like(values["positions"])  # rope turns nothing there
        if case.form == "fp8":
            values["x"] = draw("x", (case.rows, k), "f8E4M3FN")
            values["x:scale"] = draw("x:scale", (case.rows, k // 128), "f32")
            rows = values["x"], values["x:scale"]
        else:
            values["x"] = draw("x", (case.rows, k), "bf16")
            rows = quantised(values["x"])
        sets = [Given(values, self._weights(op, joined)) for joined in self._joined]
        return Trial(
            sets=sets,
            want=partial(self._want, case, sets[0], rows),
            bound=ROUNDED_BOUND if case.op == "queries" and case.form == "fp8"
            else GATED_BOUND if "gate_up" in case.op or case.op == "projections" else BOUND,
            peer=self._peer(peers, rows),
            found=partial(_found, case),
        )  # fmt: skip

    def _want(self, case: OpCase, given: Given, rows: tuple[torch.Tensor, torch.Tensor]) -> Tensors:
        x = given.values["x"]
        rounded = wide_of(*rows, 1)
        wide = rounded if case.form == "fp8" else x.double()
        peers = [_product(rounded, joined) for joined in self._joined[0]]
        want: Tensors = {f"peer.{i}": made for i, made in enumerate(peers)}
        own = peers if case.form == "fp8" else [_product(wide, j) for j in self._joined[0]]
        return want | _behind(case, own, given)

    def _peer(self, peers: Peers, rows: tuple[torch.Tensor, torch.Tensor]) -> Peer | None:
        deep_gemm = peers.get("deep_gemm")
        if deep_gemm is None:
            return None
        calls: list[Callable[[], None]] = []
        outs: list[torch.Tensor] = []
        for joined in self._joined:
            each = [multiply(deep_gemm, rows, weight) for weight in joined]
            outs = outs or [out for _, out in each]
            calls.append(partial(_all, [call for call, _ in each]))

        def found() -> Tensors:
            calls[0]()
            return {f"peer.{i}": out for i, out in enumerate(outs)}

        return Peer("DeepGEMM", calls, found)


def _all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _product(wide: torch.Tensor, joined: SourceTensors) -> torch.Tensor:
    assert joined.scales is not None
    return product_of(wide, {"weight": joined.values, "weight:scale": joined.scales}, "weight")


def _behind(case: OpCase, products: Sequence[torch.Tensor], given: Given) -> Tensors:
    """What the op gives of the products in fp64, by the names of `_found`."""
    if "gate_up" in case.op:
        gate, up = products[0].chunk(2, 1)
        return {"out.0": torch.nn.functional.silu(gate) * up}
    if case.op == "queries":
        index = products[1]
        if case.form == "fp8":  # the rotation that is done before rounding
            index = index.view(case.rows, INDEX_HEADS, INDEX) @ rotation(INDEX)
        return {"out.0": products[0].flatten(1), "out.1": index.flatten(1)}
    if case.op == "projections":
        names = ("q_a_layernorm.weight", "indexer.k_norm.weight", "indexer.k_norm.bias")
        q_weight, weight, bias = (given.weights[_A + n].values.double() for n in names)
        q, kv = torch.tensor_split(products[0], (1536,), dim=1)
        q = q * (q.square().mean(1, keepdim=True) + EPS).rsqrt() * q_weight
        k = torch.nn.functional.layer_norm(products[1], (INDEX,), weight, bias, EPS)
        return {"out.0": q, "out.1": kv, "out.2": k}
    return {"out.0": products[0]}


def _found(case: OpCase, outputs: Mapping[str, torch.Tensor]) -> Tensors:
    """Outputs as matrices, scaled ones as numbers."""
    found: Tensors = {}
    for name, value in outputs.items():
        if name.endswith(":scale"):
            continue
        scale = outputs.get(f"{name}:scale")
        if scale is not None:
            width = value.shape[-1]
            value = wide_of(value.reshape(-1, width), scale.reshape(-1, scale.shape[-1]), 1)
        found[name] = value.reshape(case.rows, -1)
    return found
