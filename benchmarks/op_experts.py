"""Routed experts of one rank of eight, whole, beside DeepGEMM's two grouped products alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fp8_cases import EXPERTS, ProductCase, draw, quantised, reference
from op_grid import PlannedOp
from op_memory import Given, Tensors
from op_trial import Peer, Peers, Trial, step_inputs

from lostwax.backends.runtime.form_weight import SourceTensors

BOUND, ROUNDED_BOUND = 3e-3, 8e-3
MASKED_ROWS = 128
"""Steps of at most so many have a place for each row at each expert; of more, pairs lie packed."""
ALIGNED = 128
Scaled = tuple[torch.Tensor, torch.Tensor]


class Experts:
    """Keeps the weights for all sizes."""

    def __init__(self) -> None:
        self._weights: Tensors = {}

    def _draw(self) -> None:
        if self._weights:
            return
        experts, inter, dim, _ = EXPERTS
        torch.manual_seed(0)
        for name, n, k in (("gate_up", 2 * inter, dim), ("down", dim, inter)):
            self._weights[name] = draw("weight", (experts, n, k), "f8E4M3FN")
            scales = (experts, n // 128, k // 128)
            self._weights[f"{name}:scale"] = draw("weight:scale", scales, "f32")
        for name in ("gate_up", "gate_up:scale"):
            gate, up = self._weights[name].chunk(2, 1)
            suffix = name.removeprefix("gate_up")
            self._weights |= {f"gate{suffix}": gate, f"up{suffix}": up}

    def open(self, op: PlannedOp, peers: Peers) -> Trial:
        """Random rows, each with other experts."""
        self._draw()
        case = op.case
        torch.manual_seed(case.rows)
        product = ProductCase(
            op="experts", label="experts", shape=EXPERTS, rows=case.rows, real=case.rows,
            form=case.form, hidden_fmt=str(op.attributes.get("moe.experts.hidden_fmt", "fp32")),
        )  # fmt: skip
        _, _, dim, top_k = EXPERTS
        values = step_inputs(case, torch.device("cuda"))
        values["ids"] = draw("ids", (case.rows, top_k), "i32", product)
        values["weights"] = draw("weights", (case.rows, top_k), "f32")
        if case.form == "fp8":
            values["x"] = draw("x", (case.rows, dim), "f8E4M3FN")
            values["x:scale"] = draw("x:scale", (case.rows, dim // 128), "f32")
            rows = values["x"], values["x:scale"]
        else:
            values["x"] = draw("x", (case.rows, dim), "bf16")
            rows = quantised(values["x"])
        weights = {
            f"mlp.experts.{n}_proj.weight": SourceTensors(
                self._weights[n], self._weights[f"{n}:scale"]
            )
            for n in ("gate", "up", "down")
        }

        def want() -> Tensors:
            given = self._weights | {"ids": values["ids"], "weights": values["weights"]}
            own = reference(product, given | {n: values[n] for n in values if n.startswith("x")})
            peer = ProductCase(
                op="experts", label="", shape=EXPERTS, rows=case.rows, real=case.rows, form="fp8"
            )
            scaled = {"x": rows[0], "x:scale": rows[1]}
            return {"out.0": own, "peer": reference(peer, given | scaled)}

        return Trial(
            sets=[Given(values, weights)],
            want=want,
            bound=BOUND if case.form == "bf16" else ROUNDED_BOUND,
            peer=self._peer(peers, rows, values["ids"], values["weights"]),
        )

    def _peer(
        self, peers: Peers, rows: Scaled, ids: torch.Tensor, weights: torch.Tensor
    ) -> Peer | None:
        deep_gemm = peers.get("deep_gemm")
        if deep_gemm is None:
            return None
        made = _Masked if ids.shape[0] <= MASKED_ROWS else _Contiguous
        calls = made(deep_gemm, rows, ids, self._weights)
        hidden = calls.first()
        hidden()  # what the second multiplies is no zeros

        def found() -> Tensors:
            hidden()
            second, out = calls.second(_gated(calls.hidden))
            second()
            share = weights.flatten().double()[calls.pair]
            total = torch.zeros(ids.shape[0], EXPERTS[2], dtype=torch.float64, device="cuda")
            picked = out.reshape(-1, EXPERTS[2])[calls.place].double()
            total.index_add_(0, calls.pair // EXPERTS[3], share[:, None] * picked)
            return {"peer": total}

        second, _ = calls.second(_gated(calls.hidden))

        def both() -> None:
            hidden()
            second()

        return Peer("DeepGEMM, two grouped products", [both], found)


def _gated(hidden: torch.Tensor) -> torch.Tensor:
    gate, up = hidden.float().chunk(2, -1)
    return torch.nn.functional.silu(gate) * up


class _Masked:
    """[experts, places, k]: each expert's rows first, their number beside."""

    def __init__(self, peer: Any, rows: Scaled, ids: torch.Tensor, weights: Tensors) -> None:
        self._peer, self._weights = peer, weights
        experts, inter, dim, top_k = EXPERTS
        count = ids.shape[0]
        self._places = -(-count // 64) * 64
        expert = ids.flatten().long()
        chosen = torch.nn.functional.one_hot(expert, experts)
        behind = (chosen.cumsum(0) - chosen)[torch.arange(expert.numel(), device="cuda"), expert]
        self.pair = torch.arange(expert.numel(), device="cuda")
        self.place = expert * self._places + behind
        self._count = chosen.sum(0).int()
        self._expected = -(-count * top_k // experts)
        values = torch.zeros(experts * self._places, dim, dtype=torch.uint8, device="cuda")
        scales = torch.ones(experts * self._places, dim // 128, device="cuda")
        values[self.place] = rows[0].view(torch.uint8)[self.pair // top_k]
        scales[self.place] = rows[1][self.pair // top_k]
        self._x = self._laid(values.view(torch.float8_e4m3fn), scales)
        self.hidden = torch.zeros(
            experts, self._places, 2 * inter, dtype=torch.bfloat16, device="cuda"
        )

    def _laid(self, values: torch.Tensor, scales: torch.Tensor) -> Scaled:
        shape = (EXPERTS[0], self._places, -1)
        lying = self._peer.get_mn_major_tma_aligned_tensor(scales.view(shape))
        return values.view(shape), lying

    def _call(self, x: Scaled, name: str, out: torch.Tensor) -> Callable[[], None]:
        weight = self._weights[name], self._weights[f"{name}:scale"]
        run = self._peer.fp8_m_grouped_gemm_nt_masked
        return partial(run, x, weight, out, self._count, self._expected)

    def first(self) -> Callable[[], None]:
        """Gate and up."""
        return self._call(self._x, "gate_up", self.hidden)

    def second(self, hidden: torch.Tensor) -> tuple[Callable[[], None], torch.Tensor]:
        """Down, of what came of the first, and where it goes."""
        out = torch.zeros(EXPERTS[0], self._places, EXPERTS[2], dtype=torch.bfloat16, device="cuda")
        scaled = quantised(hidden.reshape(-1, EXPERTS[1]))
        return self._call(self._laid(*scaled), "down", out), out


class _Contiguous:
    """[rows, k]: rows of an expert together, each expert's first at a multiple of ALIGNED."""

    def __init__(self, peer: Any, rows: Scaled, ids: torch.Tensor, weights: Tensors) -> None:
        self._peer, self._weights = peer, weights
        experts, inter, dim, top_k = EXPERTS
        expert = ids.flatten().long()
        self.pair = expert.argsort(stable=True)
        count = torch.bincount(expert, minlength=experts)
        room = (count + ALIGNED - 1) // ALIGNED * ALIGNED
        start, before = room.cumsum(0) - room, count.cumsum(0) - count
        owner = expert[self.pair]
        order = torch.arange(expert.numel(), device="cuda")
        self.place = start[owner] + order - before[owner]
        total = int(room.sum())
        self._layout = torch.full((total,), -1, dtype=torch.int32, device="cuda")
        self._layout[self.place] = owner.int()
        values = torch.zeros(total, dim, dtype=torch.uint8, device="cuda")
        scales = torch.ones(total, dim // 128, device="cuda")
        values[self.place] = rows[0].view(torch.uint8)[self.pair // top_k]
        scales[self.place] = rows[1][self.pair // top_k]
        lying = peer.get_mn_major_tma_aligned_tensor(scales)
        self._x = values.view(torch.float8_e4m3fn), lying
        self.hidden = torch.zeros(total, 2 * inter, dtype=torch.bfloat16, device="cuda")

    def _call(self, x: Scaled, name: str, out: torch.Tensor) -> Callable[[], None]:
        weight = self._weights[name], self._weights[f"{name}:scale"]
        return partial(self._peer.m_grouped_fp8_gemm_nt_contiguous, x, weight, out, self._layout)

    def first(self) -> Callable[[], None]:
        """Gate and up."""
        return self._call(self._x, "gate_up", self.hidden)

    def second(self, hidden: torch.Tensor) -> tuple[Callable[[], None], torch.Tensor]:
        """Down, of what came of the first, and where it goes."""
        out = torch.zeros(hidden.shape[0], EXPERTS[2], dtype=torch.bfloat16, device="cuda")
        values, scales = quantised(hidden)
        lying = self._peer.get_mn_major_tma_aligned_tensor(scales)
        return self._call((values, lying), "down", out), out
