"""The grid of `op.py`: which ops of V3.2, at which sizes, in which formats. Plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from lostwax.ir.contract.program import Bucket, Const, Guard, Launch, Linear, Segment, View
from lostwax.ir.contract.weights import StoredWeight

Format = Literal["bf16", "fp8"]
"""`fp8`: the official formats (activations, latents and index keys); weights are fp8 in both."""

PAGE, TOP_K, CONTEXTS_A_ROW = 64, 2048, 4
ROWS = (1, 8, 16, 64, 128, 1024, 4096)
PRODUCTS = (
    "projections", "queries", "o", "dense gate_up", "dense down", "shared gate_up", "shared down",
)  # fmt: skip
FAMILIES = ("products", "experts", "index", "topk", "attend", "mha")
"""Those that are timed where none is named; `index_forms` and `index_bf16` have other lowerings and
settings."""


class OpCase(msgspec.Struct, frozen=True, kw_only=True):
    """One op at one size: `rows` of the step over `reqs` requests of `context` positions each.

    `prefix` of them were cached before the step's own. Without a context the op reads no cache.
    `lowering` and `knobs` take the place of the planner's choice.
    """

    family: str
    op: str
    form: Format
    segment: Segment
    rows: int
    reqs: int = 1
    context: int = 0
    prefix: int = 0
    heads: int = 128
    scores: str = ""
    lowering: str = ""
    knobs: dict[str, int] = {}

    @property
    def name(self) -> str:
        """Readable and unique."""
        sizes = f"b={self.rows}" if self.segment == "decode" and self.context else f"M={self.rows}"
        if self.segment == "decode" and self.rows > self.reqs:
            sizes = f"b={self.reqs}x{self.rows // self.reqs}"
        if self.family == "mha":
            new = self.context - self.prefix
            sizes = f"{self.reqs}x{new}@{self.prefix}"
        elif self.context:
            sizes += f" L={self.context}"
        heads = f" heads={self.heads}" if self.family in ("attend", "mha") else ""
        scores = f" {self.scores}" if self.scores else ""
        chosen = "".join(f" {name}={value}" for name, value in self.knobs.items())
        lowering = f" {self.lowering}" if self.lowering else ""
        return f"{self.op} {self.form} {sizes}{heads}{scores}{lowering}{chosen}"

    @property
    def bucket(self) -> Bucket:
        """The program's, without padding."""
        context = TOP_K if self.family == "mha" else max(self.context, PAGE)
        return Bucket(self.rows, self.reqs, -(-context // PAGE))

    @property
    def guard(self) -> Guard:
        """Dense attention is of steps whose contexts are short, alone and together."""
        if self.family != "mha":
            return Guard("chosen")
        together = Linear({"total_kv": 1}, CONTEXTS_A_ROW * self.rows)
        return Guard("short", (Linear({"max_kv": 1}, TOP_K), together), selects_all=True)


class PlannedOp(msgspec.Struct, frozen=True, kw_only=True):
    """A case as the planner runs it: launches over named values.

    `inputs` and `outputs` say dtype and shape of each; `weights` are logical names, which `stored`
    makes into what launches read. `attributes` are the ops', by OP.NAME. `us` is the planner's
    estimate. `of_step` are the numbers of launches that all layers of a step share.
    """

    case: OpCase
    lowerings: tuple[str, ...]
    launches: tuple[Launch, ...]
    inputs: dict[str, View]
    outputs: dict[str, View]
    attributes: dict[str, Const]
    weights: tuple[str, ...]
    stored: tuple[StoredWeight, ...]
    us: float
    of_step: tuple[int, ...] = ()


def cases(families: tuple[str, ...] = FAMILIES) -> Iterator[OpCase]:
    """Those of some families, cases that share weights or a cache behind one another."""
    of = {
        "products": _products, "experts": _experts, "index": _index, "topk": _topk,
        "attend": _attend, "mha": _mha, "index_forms": _index_forms, "index_bf16": _index_bf16,
    }  # fmt: skip
    for family in families:
        yield from of[family]()


def _step(rows: int) -> tuple[Segment, int]:
    """Segment and requests of a step of so many rows: prompts above 128 of them."""
    return ("decode", rows) if rows <= 128 else ("extend", 1)


def _products() -> Iterator[OpCase]:
    for op in PRODUCTS:
        for rows in ROWS:
            segment, reqs = _step(rows)
            for form in ("fp8", "bf16"):
                yield OpCase(
                    family="products", op=op, form=form, segment=segment, rows=rows, reqs=reqs
                )


def _experts() -> Iterator[OpCase]:
    for rows in ROWS:
        segment, reqs = _step(rows)
        for form in ("fp8", "bf16"):
            yield OpCase(
                family="experts", op="experts", form=form, segment=segment, rows=rows, reqs=reqs
            )


def _index() -> Iterator[OpCase]:
    for context in (4096, 32768, 131072):
        for rows in (1, 16, 64, 128):
            yield OpCase(
                family="index", op="index", form="fp8", segment="decode", rows=rows, reqs=rows,
                context=context,
            )  # fmt: skip
    for rows, context in ((1024, 4096), (2048, 16384), (2048, 65536)):
        for op in ("index", "index_topk"):
            yield OpCase(
                family="index", op=op, form="fp8", segment="extend", rows=rows, context=context,
                prefix=context - rows,
            )  # fmt: skip


def _index_forms() -> Iterator[OpCase]:
    """Each size by the kernel of all GPUs, then by forms of Hopper's (`cuda/lowerings`)."""
    yield from _ways(256, 128, 32768, 0, (2, 3, 7), (0,))
    yield from _ways(512, 128, 32768, 0, (2, 3, 4, 7), (0,))
    for rows, context in ((1, 131072), (16, 32768), (128, 4096), (128, 32768)):
        yield from _ways(rows, rows, context, 0, (1, 5, 6), (0,))
    for rows, context in ((1024, 4096), (2048, 16384)):
        yield from _ways(rows, 1, context, context - rows, (3, 4, 7, 8, 9), (0, 4))


def _ways(
    rows: int, reqs: int, context: int, prefix: int, forms: tuple[int, ...],
    stages: tuple[int, ...], form: Format = "fp8", op: str = "index",
) -> Iterator[OpCase]:  # fmt: skip
    tiles = "topk_tiles" if op == "index_topk" else "logits"
    plain = OpCase(
        family="index_forms" if form == "fp8" else "index_bf16", op=op, form=form,
        segment="extend" if reqs == 1 < rows else "decode", rows=rows, reqs=reqs,
        context=context, prefix=prefix,
        lowering="sm90_index_topk_tiles" if op == "index_topk" else "smxx_index_logits",
    )  # fmt: skip
    yield plain
    for number in forms:
        for each in stages:
            knobs = {"form": number, "stages": each}
            yield msgspec.structs.replace(plain, lowering=f"sm90_{form}_index_{tiles}", knobs=knobs)


def _index_bf16() -> Iterator[OpCase]:
    """Keys in bf16 by the kernel of all GPUs, then by Hopper's: its rule and other forms. No peer
    takes them."""
    for rows in (1, 16, 64, 128):
        for context in (4096, 32768):
            yield from _ways(rows, rows, context, 0, (0,), (0,), "bf16")
    yield from _ways(256, 128, 32768, 0, (2, 7), (0,), "bf16")
    for rows in (256, 512, 1024, 2048):
        for prefix in (0, 2048, 3072, 6144):
            yield from _ways(rows, 1, prefix + rows, prefix, (0, 3, 8), (0,), "bf16")
    for rows, prefix in ((1024, 2048), (2048, 2048)):
        yield from _ways(rows, 1, prefix + rows, prefix, (0,), (0,), "bf16", "index_topk")


def _topk() -> Iterator[OpCase]:
    for context in (32768, 131072):
        for rows in (1, 4, 16, 64, 128):
            for scores in ("", "narrow") if rows == 16 else ("",):
                yield OpCase(
                    family="topk", op="topk", form="fp8", segment="decode", rows=rows, reqs=rows,
                    context=context, scores=scores,
                )  # fmt: skip


def _attend() -> Iterator[OpCase]:
    for heads in (16, 64, 128):
        for rows in (1, 4, 16, 64, 128):
            yield OpCase(
                family="attend", op="attend", form="fp8", segment="decode", rows=rows, reqs=rows,
                context=32768, heads=heads,
            )  # fmt: skip
    for heads, rows, context in (
        (128, 1024, 4096), (128, 2048, 4096), (128, 2048, 8192), (16, 2048, 8192),
        (128, 1024, 8192), (128, 2048, 32768),
    ):  # fmt: skip
        yield OpCase(
            family="attend", op="attend", form="bf16", segment="extend", rows=rows,
            context=context, prefix=context - rows, heads=heads,
        )  # fmt: skip


def _mha() -> Iterator[OpCase]:
    for heads in (128, 16):
        for reqs, length in ((1, 2048), (4, 512), (1, 1024)):
            yield OpCase(
                family="mha", op="mha", form="bf16", segment="extend", rows=reqs * length,
                reqs=reqs, context=length, heads=heads,
            )  # fmt: skip
