"""From the residual add to all that attention and its indexer read, of bf16 activations: what
stands before a product leaves the two terms of fp8 that it multiplies. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product

from lostwax.backends.gpu_kernels.lowerings.cached_rows import (
    Formats,
    QueryRows,
    cached_launch,
    cached_tables,
    carve_heads,
    formats_when,
    zeroed_bytes,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_joined import JOINED, Joined
from lostwax.backends.gpu_kernels.lowerings.fp8_products import KNOBS
from lostwax.backends.gpu_kernels.lowerings.fp8_rows import width_at_most
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import Terms, fp8_of
from lostwax.backends.gpu_kernels.lowerings.joined_queries import (
    QUERIES_FORM,
    queries_when,
    query_nodes,
    query_outputs,
    turned_launch,
)
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    encoding,
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.prepared import rope_consts
from lostwax.backends.predicates import Predicate, dtype, of_rows, rank
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.region import Node, Region

_KERNEL = "lostwax.backends.gpu_kernels.norm_terms:add_rms_norm_terms"
_MAX_WIDTH = 16384  # one program holds a row in registers
_FLOATS = ("f32", "bf16")

_NORM = {
    "sum": Node("core.add", {"a": "residual", "b": "delta"}),
    "residual_out": Node("core.cast", {"x": "sum"}),
    "normed": Node("core.rms_norm", {"x": "sum", "weight": "norm_weight"}),
}


@dataclass(frozen=True, slots=True)
class _Places:
    """Tensors of the workspace: the terms of the normed rows and of the query's, and the normed
    rows themselves for the heads' product."""

    x: Terms
    q: Terms
    normed: View

    @staticmethod
    def of(match: Match, carver: Carver) -> _Places:
        x, q = (_carve_terms(match, value, carver) for value in ("normed", "q_normed"))
        return _Places(x, q, carver.take("bf16", *match.shape("normed")))


def _carve_terms(match: Match, value: str, carver: Carver) -> Terms:
    rows, width = match.shape(value)
    blocks = -(-width // FP8_BLOCK)
    values = carver.take(fp8_of(match), 2 * rows, width)
    return Terms(values, 2, carver.take("f32", rows, blocks), blocks, 1, ())


@dataclass(frozen=True, slots=True)
class _Inputs:
    """One region: its formats, and whether it ends with both queries. It does where positions are
    selected, and else has no use for the indexer's."""

    formats: Formats
    queries: bool

    @property
    def name(self) -> str:
        """The lowering's."""
        kind = "queries" if self.queries else "cached"
        return f"smxx_fp8_attention_{kind}{self.formats.suffix}"

    @property
    def region(self) -> Region:
        """Everything from the residual add on."""
        nodes = _NORM | self.formats.nodes("normed", "normed")
        if not self.queries:
            return Region(nodes, ("residual_out", *self.formats.outputs))
        nodes |= query_nodes("q_normed", self.formats.key)
        cached = (name for name in self.formats.outputs if name != "q_normed")
        return Region(nodes, ("residual_out", *cached, *query_outputs(self.formats.key)))

    def _cached(self, places: _Places | None) -> Joined:
        """The first product; without places only sizes count."""
        behind = partial(cached_launch, formats=self.formats, op=self.name)
        if places is not None:
            behind = partial(behind, x_heads=places.normed)
            if self.queries:
                rows = QueryRows(places.q.values, places.q.scale, terms=2)
                behind = partial(behind, query=rows)
        carve = partial(carve_heads, formats=self.formats)
        return Joined(self.name, JOINED.concat, behind, carve, x="normed", is_wide=True)

    def _queries(self) -> Joined:
        """The second product."""
        behind = partial(turned_launch, quantised=self.formats.key, op=self.name)
        is_wide = self.formats.key
        return Joined(self.name, QUERIES_FORM.concat, behind, x="q_normed", is_wide=is_wide)

    def workspace(self, match: Match, knobs: Knobs) -> int:
        """Bytes of terms and planes."""
        carver = Carver(None)
        _Places.of(match, carver)
        for joined in (self._cached(None), *([self._queries()] if self.queries else [])):
            joined.carved(match, joined.product(match, knobs), carver)
        return carver.num_bytes

    def emit(self, match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        """The norm, then each product and what stands behind it."""
        carver = Carver(match.workspace)
        places = _Places.of(match, carver)
        first, second = self._cached(places), self._queries()
        norm = _norm_launch(match, places, keep=self.formats.heads, op=self.name)
        launches = (norm, *first.launches(match, first.product(match, knobs), places.x, carver))
        if not self.queries:
            return launches
        product = second.product(match, knobs)
        return (*launches, *second.launches(match, product, places.q, carver))

    def work(self, match: Match, knobs: Knobs) -> Work:
        """That of both products; their terms are made by launches that are there anyway."""
        first = self._cached(None).work(match, knobs)
        if not self.queries:
            return first
        second, base = self._queries().work(match, knobs), match.work()
        num_bytes = first.num_bytes + second.num_bytes - base.num_bytes
        return Work(num_bytes, first.flops, first.launches + second.launches - 1)

    @property
    def when(self) -> Predicate:
        """What all parts ask."""
        found = dtype("residual", *_FLOATS) & dtype("delta", *_FLOATS) & dtype("sum", "f32")
        found &= dtype("residual_out", *_FLOATS) & dtype("norm_weight", *_FLOATS)
        found &= dtype("normed", "bf16") & rank("residual", 2) & of_rows("residual")
        found &= width_at_most("residual", _MAX_WIDTH)
        found &= formats_when(self.formats, "normed", "normed")
        if not self.queries:
            return found
        return found & queries_when("q_normed", self.formats.key) & Predicate(_one_table)


def _one_table(match: Match) -> str | None:
    """A query turns as its key does: one table serves both."""
    for key, query in (("k_pe_turned", "q_turned"), ("k_turned", "index_turned")):
        if rope_consts(match, key) != rope_consts(match, query):
            return f"{query} turns otherwise than {key}"
    return None


def _norm_launch(match: Match, places: _Places, keep: bool, op: str) -> Launch:
    rows, width = match.shape("normed")
    residual, delta = match.view("residual"), match.view("delta")
    residual_out = match.view("residual_out")
    groups = next_power_of_two(-(-width // FP8_BLOCK))
    return triton_launch(
        match,
        _KERNEL,
        {
            "residual": residual,
            "delta": delta,
            "weight": match.view("norm_weight"),
            "residual_out": residual_out,
            "normed": places.normed,
            "terms": places.x.values,
            "scales": places.x.scale,
            "real_rows": real_rows(match),
            "num_rows": i32(rows),
            "residual_stride": i32(residual.strides[0]),
            "delta_stride": i32(delta.strides[0]),
            "residual_out_stride": i32(residual_out.strides[0]),
            "eps": f32(float(match.attr("normed", "eps"))),
        },
        {
            "WIDTH": width,
            "BLOCK": FP8_BLOCK,
            "GROUPS": groups,
            "KEEP_NORMED": int(keep),
            "BF16_SUM": int(match.dtype("residual_out") == "bf16"),
            **encoding(match.target),
            "ROUND_FIRST": 0,
        },
        grid=(rows, 1, 1),
        op=op,
        num_warps=max(1, min(8, groups * FP8_BLOCK // 512)),
        rows_of=("residual_stride", "delta_stride", "residual_out_stride"),
    )


def _lowering(inputs: _Inputs) -> Lowering:
    forms = {"w_q": JOINED} | ({"w_q_b": QUERIES_FORM} if inputs.queries else {})
    return Lowering(
        name=inputs.name,
        pattern=inputs.region,
        emit=inputs.emit,
        when=inputs.when,
        knobs=KNOBS,
        weights=forms,
        workspace=inputs.workspace,
        zeroed=lambda match, knobs: zeroed_bytes(match, inputs.formats),
        prepare=cached_tables,
        work=inputs.work,
    )


ATTENTION_INPUTS = tuple(
    _lowering(_Inputs(Formats(heads=queries, query=False, latent=latent, key=key), queries))
    for queries, latent, key in product((True, False), repeat=3)
)
"""One for each set of formats of both caches."""
