"""Cases of the CUDA kernels: shapes, seeded inputs and fp64 references, on torch alone.

Used on two machines: the one that compiles (shapes) and the one with the GPU (inputs, references).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import format_cases
import sample_cases
import torch

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[tuple[int, ...], str, tuple[int, ...]]]  # shape, dtype, strides
DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16,
    "f8E4M3FN": torch.float8_e4m3fn,
    "i64": torch.int64, "i32": torch.int32, "u8": torch.uint8,
}  # fmt: skip
EPS = 1e-6
SCALE = 0.1352337788  # 192^-0.5 m^2 of DeepSeek-V3.2
PAGE = 64


@dataclass(frozen=True)
class Case:
    """One lowering at one size. `dims` as the op's family names them."""

    op: str
    dims: dict[str, int]
    dtypes: tuple[str, ...] = ()
    knobs: dict[str, int] = field(default_factory=dict[str, int])
    timed: bool = False

    @property
    def name(self) -> str:
        """Readable and unique."""
        sizes = " ".join(f"{k}={v}" for k, v in self.dims.items())
        knobs = " ".join(f"{k}:{v}" for k, v in self.knobs.items())
        return " ".join(p for p in (self.op, "/".join(self.dtypes), sizes, knobs) if p)


def norm_case(rows: int, width: int, dtype: str, timed: bool = False) -> Case:
    """Residual add, cast and norm of `rows` rows."""
    return Case("add_rms_norm", {"rows": rows, "width": width}, (dtype,), timed=timed)


def topk_case(rows: int, length: int, k: int = 2048, timed: bool = False, **knobs: int) -> Case:
    """The k largest of each row."""
    return Case("topk", {"rows": rows, "length": length, "k": k}, (), knobs, timed)


def attend_case(
    reqs: int, heads: int, top: int, pages: int, dtypes: tuple[str, str] = ("bf16", "bf16"),
    ranks: tuple[int, int, int, int] = (128, 64, 512, 128), dense: bool = False,
    timed: bool = False, knobs: Mapping[str, int] | None = None,
) -> Case:  # fmt: skip
    """One row a request; ranks: nope, rope, latent, value; dtypes: activations, cache."""
    nope, rope, latent, value = ranks
    dims = {"reqs": reqs, "heads": heads, "top": top, "pages": pages}
    dims |= {"nope": nope, "rope": rope, "latent": latent, "value": value}
    return Case("attend_all" if dense else "attend", dims, dtypes, dict(knobs or {}), timed)


def sample_case(op: str, rows: int, vocab: int, timed: bool = False, **knobs: int) -> Case:
    """An op of the dialect `sample` over whole rows of logits."""
    return Case(op, {"rows": rows, "vocab": vocab}, ("f32",), knobs, timed)


def way_case(rows: int, vocab: int, way: Mapping[str, int], timed: bool = False) -> Case:
    """A head's tail over rows that are sampled in this way."""
    return Case("sample_tail", {"rows": rows, "vocab": vocab, **way}, ("f32",), timed=timed)


def cases() -> Iterator[Case]:
    """Edge shapes first, then the timed ones."""
    yield from edge_cases()
    yield from timed_cases()
    for op, dims, timed in format_cases.sizes():
        yield Case(op, dims, ("bf16",), timed=timed)


def edge_cases() -> Iterator[Case]:
    """Odd sizes, ties, padding: for being right only."""
    wide, narrow = ("f32", "f32"), ("bf16", "bf16")
    for width in (1, 7, 100, 257, 1536, 16384):
        yield norm_case(3, width, "f32")
        yield norm_case(5, width, "bf16")
    for length in (1, 3, 64, 65, 2048, 2050, 4160, 8191, 20000, 65537, 163840, 262144):
        yield topk_case(12, length)
        yield topk_case(24, length, 32)
    for op in sample_cases.OPS:
        for rows, vocab in ((1, 1), (3, 7), (32, 1025), (32, 129280)):
            yield sample_case(op, rows, vocab)
    for cluster in (1, 2, 4, 8, 16):
        yield topk_case(24, 8000, 1, cluster=cluster)
        yield topk_case(24, 16384, 2047, cluster=cluster)
    for dense in (False, True):
        yield attend_case(5, 3, 32, 3, wide, (24, 10, 72, 20), dense)
        yield attend_case(1, 20, 7, 1, wide, (8, 6, 24, 8), dense)
        yield attend_case(9, 4, 32, 8, narrow, (32, 16, 128, 32), dense)
        yield attend_case(3, 5, 100, 40, narrow, (33, 7, 65, 19), dense)
        yield attend_case(4, 16, 2048, 64, ("f32", "bf16"), dense=dense)
        yield attend_case(2, 16, 2048, 33, wide, dense=dense)


def timed_cases() -> Iterator[Case]:
    """Sizes of the full model, and two of the tiny one."""
    for rows in (1, 16, 128):
        yield norm_case(rows, 7168, "bf16", timed=True)
    yield norm_case(4, 256, "f32", timed=True)
    yield topk_case(4, 512, 32, timed=True)
    for rows, length in (
        (1, 4096), (1, 32768), (1, 131072), (4, 131072), (16, 32768), (16, 131072),
        (64, 32768), (64, 131072), (128, 4096), (128, 32768), (128, 131072),
    ):  # fmt: skip
        yield topk_case(rows, length, timed=True)
    for rows, length, cluster in ((16, 131072, 16), (64, 32768, 4), (128, 32768, 2), (1, 32768, 8)):
        yield topk_case(rows, length, timed=True, cluster=cluster)
    yield from timed_sample_cases()
    yield attend_case(4, 4, 32, 8, ("f32", "f32"), (32, 16, 128, 32), timed=True)
    for reqs in (1, 4, 16, 64, 128):  # by rule, its alternative, and the query in one part
        yield attend_case(reqs, 16, 2048, 64, timed=True)
        other = {"block_keys": 64, "num_warps": 8} if reqs == 128 else {"block_keys": 32}
        yield attend_case(reqs, 16, 2048, 64, timed=True, knobs=other)
        yield attend_case(reqs, 16, 2048, 64, timed=True, knobs={"query_parts": 1})
    for reqs in (1, 4, 8, 32):
        yield attend_case(reqs, 128, 2048, 64, timed=True)
        yield attend_case(
            reqs, 128, 2048, 64, timed=True, knobs={"block_heads": 32, "num_warps": 8}
        )
        for parts in (1, 2):
            knobs = {"block_heads": 64, "block_keys": 32, "num_warps": 8, "query_parts": parts}
            yield attend_case(reqs, 128, 2048, 64, timed=True, knobs=knobs)
    yield attend_case(4, 16, 2048, 32, dense=True, timed=True)


def timed_sample_cases() -> Iterator[Case]:
    """Vocabularies of the tiny model, of a part of the full one, and of the full one."""
    for op in sample_cases.OPS:
        for rows in (1, 4, 8, 64):
            for vocab in (4096, 16160, 129280):
                yield sample_case(op, rows, vocab, timed=True)
            others = ({"num_warps": 4}, {"num_warps": 16}, {"block": 512}, {"block": 2048})
            for knobs in others[:2] if op in ("sample_tail", "score") else others:
                yield sample_case(op, rows, 129280, timed=True, **knobs)
    for way in sample_cases.WAYS:
        yield way_case(32, 129280, way)
        for rows in (1, 8, 64):
            for vocab in (4096, 129280):
                yield way_case(rows, vocab, way, timed=True)


def shapes(case: Case) -> Shapes:
    """Shape, dtype and strides of every value of the region (no strides: row-major)."""
    d = case.dims
    if case.op in sample_cases.OPS:
        return sample_cases.shapes(case.op, d["rows"], d["vocab"])
    if case.op in format_cases.OPS:
        return format_cases.shapes(case.op, d)
    if case.op == "add_rms_norm":
        rows = ((d["rows"], d["width"]), case.dtypes[0], ())
        found: Shapes = dict.fromkeys(("residual", "delta", "residual_out", "normed"), rows)
        found["sum"] = ((d["rows"], d["width"]), "f32", ())
        found["weight"] = ((d["width"],), case.dtypes[0], ())
        return found
    if case.op == "topk":
        logits = ((d["rows"], d["length"]), "f32", ())
        return {"logits": logits, "op.out": ((d["rows"], d["k"]), "i32", ())}
    act, stored = case.dtypes
    reqs, heads, nope, rope = d["reqs"], d["heads"], d["nope"], d["rope"]
    query = (heads * (nope + rope), nope + rope, 1)  # slices of one tensor, as in the model
    return {
        "q_nope": ((reqs, heads, nope), act, query),
        "q_pe": ((reqs, heads, rope), act, query),
        "kv_b": ((heads * (nope + d["value"]), d["latent"]), act, ()),
        "cache_in": ((reqs * d["pages"] + 1, PAGE, d["latent"] + rope), stored, ()),
        "selection": ((reqs, d["top"]), "i32", ()),
        "positions": ((reqs,), "i32", ()),
        "q_starts": ((reqs + 1,), "i32", ()),
        "page_table": ((reqs, d["pages"]), "i32", ()),
        "op.out": ((reqs, heads * d["value"]), act, ()),
    }


def attributes(case: Case) -> list[tuple[str, str, int | float | str]]:
    """Properties of the region's ops: node, name, value."""
    if case.op == "add_rms_norm":
        return [("normed", "eps", EPS)]
    if case.op == "topk":
        return [("op", "k", case.dims["k"])]
    if case.op in sample_cases.OPS:
        return []
    if case.op in format_cases.OPS:
        return format_cases.attributes(case.op, case.dims)
    return [("op", "scale", SCALE)]


def _norm_inputs(case: Case, normal: Callable[..., torch.Tensor], full: bool) -> Tensors:
    rows, width = case.dims["rows"], case.dims["width"]
    residual, delta = 3 * normal(rows, width), normal(rows, width)
    return {"residual": residual, "delta": delta, "weight": 1 + 0.1 * normal(width)}


Edit = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _holes(x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    return x.masked_fill(drawn < 0.3, -torch.inf).masked_fill(drawn > 0.8, torch.nan)


def _short(x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    return x.masked_fill(torch.arange(x.shape[0], device=x.device) > x.shape[0] // 3, -torch.inf)


def _extremes(x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    edges = torch.tensor([0.0, -0.0, torch.inf, 1e-45, -1e-45, 3.4e38], device=x.device)
    return edges[(drawn * 6).long().clamp(max=5)]


ROW_KINDS: tuple[Edit, ...] = (
    lambda x, drawn: x,
    lambda x, drawn: 1 + 1e-6 * x,
    lambda x, drawn: (2 * x).round() / 2,
    lambda x, drawn: torch.full_like(x, -1.5),
    lambda x, drawn: x.sort().values,
    lambda x, drawn: x.sort(descending=True).values,
    _holes,
    _short,
    lambda x, drawn: torch.full_like(x, -torch.inf),
    _extremes,
    lambda x, drawn: x.relu() * (drawn < 0.1),
    lambda x, drawn: -1e30 * x,
)
"""Rows on which a selection by value can go wrong, from normal values and uniform draws."""


def _topk_inputs(case: Case, normal: Callable[..., torch.Tensor], full: bool) -> Tensors:
    """Rows of every kind in turn; plain random rows when `full`."""
    x = normal(case.dims["rows"], case.dims["length"])
    if not full:
        for row in range(x.shape[0]):
            x[row] = ROW_KINDS[row % len(ROW_KINDS)](x[row], torch.rand_like(x[row]))
    return {"logits": x}


def _attend_inputs(case: Case, normal: Callable[..., torch.Tensor], full: bool) -> Tensors:
    """Unequal lengths, pages in random order, one padded row where there are several."""
    d = case.dims
    reqs, pages, top = d["reqs"], d["pages"], d["top"]
    q = normal(reqs, d["heads"], d["nope"] + d["rope"])
    device = q.device
    context = pages * PAGE
    lengths = torch.full((reqs,), context, device=device)
    if not full:
        lengths = torch.randint(1, context + 1, (reqs,), device=device)
        lengths[0] = context
    positions = lengths - 1
    real = reqs
    if not full and reqs > 1:
        real, positions[-1] = reqs - 1, -1
    dense = case.op == "attend_all"
    drawn = torch.rand(reqs, context, device=device)
    order = torch.arange(context, device=device).expand(reqs, -1)
    hidden = order > positions[:, None]
    ranked = torch.where(hidden, torch.inf, order / context if dense else drawn).argsort(1)
    count = (positions + 1).clamp(max=top)
    if not full and not dense:
        count[::3] = (count[::3] + 1) // 2
    ranked = torch.where(order < count[:, None], ranked, context)[:, :top].sort(1).values
    selection = torch.full((reqs, top), -1, device=device)
    selection[:, : ranked.shape[1]] = torch.where(ranked < context, ranked, -1)
    table = torch.randperm(reqs * pages, device=device).view(reqs, pages) + 1
    return {
        "q_nope": q[..., : d["nope"]],
        "q_pe": q[..., d["nope"] :],
        "kv_b": normal(d["heads"] * (d["nope"] + d["value"]), d["latent"]) / d["latent"] ** 0.5,
        "cache_in": normal(reqs * pages + 1, PAGE, d["latent"] + d["rope"]),
        "selection": selection,
        "positions": positions,
        "q_starts": torch.arange(reqs + 1, device=device).clamp(max=real),
        "page_table": table,
    }


_INPUTS = {"add_rms_norm": _norm_inputs, "topk": _topk_inputs}


def inputs(case: Case, seed: int, device: torch.device, full: bool) -> Tensors:
    """Seeded inputs, f32 or i64; `full` fills the size (for timing) instead of edge contents."""
    torch.manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device)

    if case.op in sample_cases.OPS:
        return sample_cases.inputs(case.op, case.dims, normal, full)
    if case.op in format_cases.OPS:
        return format_cases.inputs(case.op, case.dims, normal)
    return _INPUTS.get(case.op, _attend_inputs)(case, normal, full)


def _norm_reference(case: Case, x: Tensors) -> Tensors:
    total = x["residual"].double() + x["delta"].double()
    norm = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + EPS)
    return {"normed": norm * x["weight"].double(), "residual_out": total}


def _topk_reference(case: Case, x: Tensors) -> Tensors:
    """A stable sort; what is -inf or NaN becomes -1 and goes last."""
    logits, k = x["logits"], case.dims["k"]
    rows, length = logits.shape
    values = torch.where(logits.isnan(), -torch.inf, logits)
    best = values.sort(dim=1, descending=True, stable=True)
    kept = torch.where(best.values > -torch.inf, best.indices, length)[:, :k].sort(1).values
    out = torch.full((rows, k), -1, dtype=torch.int32, device=logits.device)
    out[:, : kept.shape[1]] = torch.where(kept < length, kept, -1)
    return {"op.out": out}


def _attend_reference(case: Case, x: Tensors) -> Tensors:
    d = case.dims
    heads, nope = d["heads"], d["nope"]
    weights = x["kv_b"].double().view(heads, -1, d["latent"])
    out = torch.zeros(d["reqs"], heads, d["value"], dtype=torch.float64, device=weights.device)
    for row in range(d["reqs"]):
        chosen = x["selection"][row][x["selection"][row] >= 0].long()
        if chosen.numel() == 0:
            continue
        page = x["page_table"][row].long()[chosen // PAGE]
        cached = x["cache_in"][page, chosen % PAGE].double()
        c, k_pe = cached[:, : d["latent"]], cached[:, d["latent"] :]
        absorbed = torch.einsum("hd,hdc->hc", x["q_nope"][row].double(), weights[:, :nope])
        score = (absorbed @ c.T + x["q_pe"][row].double() @ k_pe.T) * SCALE
        out[row] = torch.einsum("hc,hvc->hv", score.softmax(-1) @ c, weights[:, nope:])
    return {"op.out": out.view(d["reqs"], -1)}


_REFERENCES = {"add_rms_norm": _norm_reference, "topk": _topk_reference}


def reference(case: Case, stored: Tensors) -> Tensors:
    """Outputs in fp64 (ids: exact i32) for inputs as the buffers hold them."""
    if case.op in sample_cases.OPS:
        return sample_cases.reference(case.op, stored)
    if case.op in format_cases.OPS:
        return format_cases.reference(case.op, case.dims, stored)
    return _REFERENCES.get(case.op, _attend_reference)(case, stored)


def found(case: Case, tensors: Tensors) -> Tensors:
    """What a case's buffers hold, by the reference's names."""
    if case.op in format_cases.OPS:
        return format_cases.found(case.op, case.dims, tensors)
    return tensors
