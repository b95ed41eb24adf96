"""Attention to a selection by a host call of a library, between launches of our own.

These bring the query into the latent space and the result out of it, and list the slots of what a
row selected. Which library, and what it takes, is the backend's. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.absorbed import PLAIN, absorb_launch
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    i32,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.ranks import LATENT, has_ranks
from lostwax.backends.lowering import Knobs, Match, Work
from lostwax.backends.predicates import dtype, of_rows, plain
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch, View

_BLOCK_KEYS, _BLOCK_REQS = 1024, 64


BF16_WHEN = (
    dtype("q_nope", "bf16")
    & dtype("q_pe", "bf16")
    & plain("kv_b")
    & dtype("kv_b", "bf16")
    & has_ranks()
    & of_rows("q_nope")
)
"""What the launches around the call ask."""


@dataclass(frozen=True, slots=True)
class _Scratch:
    """The absorbed query [heads, rows, 512] f32, slots [rows, keys], attended latents."""

    query: View
    slots: View
    latent: View

    @staticmethod
    def of(match: Match, carver: Carver) -> _Scratch:
        rows, heads, _ = match.shape("q_nope")
        query = carver.take("f32", heads, rows, LATENT)
        slots = carver.take("i32", rows, match.shape("selection")[1])
        return _Scratch(query, slots, carver.take("bf16", heads, rows, LATENT))


@dataclass(frozen=True, slots=True)
class AttendCall:
    """The lowering's name and its host function, called as `function(query [H, T, 512] f32, q_pe,
    stored, slots i32 [T, K], latent [H, T, 512] bf16, scale=...)`; the launches of all, and the
    bytes that a selected key costs beside its row."""

    name: str
    function: str
    launches: int
    key_bytes: int

    def workspace(self, match: Match, knobs: Knobs) -> int:
        """What lies between the launches."""
        carver = Carver(None)
        _Scratch.of(match, carver)
        return carver.num_bytes

    def work(self, match: Match, knobs: Knobs) -> Work:
        """The region's own, and what lies between the launches, written and read."""
        base, (rows, heads, _) = match.work(), match.shape("q_nope")
        between = 2 * (4 + 2 + 2 + 2) * rows * heads * LATENT
        between += self.key_bytes * rows * match.shape("selection")[1]
        return Work(base.num_bytes + between, base.flops, self.launches)

    def emit(self, match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        """The query absorbed, slots listed, the call, and what leaves."""
        carver = Carver(match.workspace)
        scratch = _Scratch.of(match, carver)
        views = (match.view("q_pe"), match.view("cache_in"))
        attend = HostCall(
            function=self.function,
            args=(scratch.query, *views, scratch.slots, scratch.latent),
            consts={"scale": match.attr("op", "scale")},
            capturable=True,
            op=self.name,
        )
        return (
            absorb_launch(match, knobs, scratch.query, self.name),
            self._list_slots(match, scratch.slots),
            attend,
            *PLAIN.leave(match, knobs, scratch.latent, carver, self.name),
        )

    def _list_slots(self, match: Match, slots: View) -> KernelLaunch:
        selection, page_table = match.view("selection"), match.view("page_table")
        rows, keys = slots.shape
        return triton_launch(
            match,
            "lostwax.backends.gpu_kernels.selected_slots:selected_slots",
            {
                "selection": selection,
                "q_starts": match.view("q_starts"),
                "page_table": page_table,
                "slots": slots,
                "real_rows": real_rows(match),
                "reqs": i32(page_table.shape[0]),
                "selection_stride": i32(selection.strides[0]),
                "table_stride": i32(page_table.strides[0]),
            },
            {
                "KEYS": keys,
                "PAGE": match.shape("cache_in")[1],
                "BLOCK": _BLOCK_KEYS,
                "BLOCK_REQS": _BLOCK_REQS,
            },
            grid=(rows, -(-keys // _BLOCK_KEYS), 1),
            op=self.name,
        )
