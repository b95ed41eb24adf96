"""Values of the fp8 formats' cases: shapes, seeded inputs and references, on torch and numpy alone.

What is rounded from the inputs must have the reference's bits; what a kernel computes first is
compared widened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.reference import core, dsa
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array, Scaled, round_to, widen
from lostwax.ir.reference.quant import quantise

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[tuple[int, ...], str, tuple[int, ...]]]
Dims = Mapping[str, int]
EPS = 1e-6
PAGE = 64
FP8 = "f8E4M3FN"
ROWS = (1, 16, 128, 2048)
OPS = {
    "quantise": "smxx_quantise",
    "silu_mul_quantise": "smxx_silu_mul_quantise",
    "rms_norm_quantise": "smxx_rms_norm_quantise",
    "add_rms_norm_quantise": "smxx_add_rms_norm_quantise",
    "add_rms_norm_and_quantise": "smxx_add_rms_norm_and_quantise",
    "hadamard": "smxx_hadamard",
    "rope_hadamard_quantise": "smxx_rope_hadamard_quantise",
    "append_scaled": "smxx_append_scaled",
    "append_fp8": "smxx_append",
    "append_latent": "smxx_append_latent",
    "append_index_key": "smxx_append_index_key",
}
"""By op of a case: its lowering."""
LAYOUT = {
    "append_scaled": "fp8_656",
    "append_fp8": "fp8_576",
    "append_latent": "fp8_656",
    "append_index_key": "index_paged",
}
_EXACT = ("quantise", "append_scaled", "append_fp8")


def sizes() -> Iterator[tuple[str, dict[str, int], bool]]:
    """Ops with their dims, and whether they are timed: an odd size, then the model's."""
    for rows in (3, *ROWS):
        timed = rows != 3
        for width in (7168, 1536, 16384) if timed else (300,):
            yield "quantise", {"rows": rows, "width": width}, timed
        for width in (2048, 18432) if timed else (300,):
            yield "silu_mul_quantise", {"rows": rows, "width": width}, timed
        yield "rms_norm_quantise", {"rows": rows, "width": 1536 if timed else 300}, timed
        for op in ("add_rms_norm_quantise", "add_rms_norm_and_quantise"):
            yield op, {"rows": rows, "width": 7168 if timed else 300}, timed
        heads = {"rows": rows, "heads": 64 if timed else 5, "width": 128}
        for op in ("quantise", "hadamard"):
            yield op, heads, timed
        yield "rope_hadamard_quantise", heads | {"dim": 64}, timed
        for op in ("append_scaled", "append_fp8", "append_latent"):
            yield op, {"rows": rows, "width": 512, "dim": 64}, timed
        yield "append_index_key", {"rows": rows, "width": 128, "dim": 64}, timed


def parts(op: str, dims: Dims) -> tuple[int, ...]:
    """Widths of the parts of the cache's row."""
    return (dims["width"],) if op == "append_index_key" else (dims["width"], dims["dim"])


def _cache(op: str, dims: Dims) -> tuple[tuple[int, ...], str, tuple[int, ...]]:
    form, row = LAYOUTS[LAYOUT[op]], parts(op, dims)
    pages, row_bytes = -(-dims["rows"] // PAGE) + 1, form.row_bytes(row)
    if form.element is not None:
        return (pages, PAGE, sum(row)), form.element, ()
    shape = (pages, PAGE * row_bytes) if form.is_paged else (pages, PAGE, row_bytes)
    return shape, "u8", ()


_WIDE: dict[str, tuple[str, ...]] = {
    "quantise": ("x",),
    "silu_mul_quantise": ("gate", "up", "product"),
    "rms_norm_quantise": ("x", "normed"),
    "add_rms_norm_quantise": ("residual", "delta", "residual_out", "normed"),
    "add_rms_norm_and_quantise": ("residual", "delta", "residual_out", "normed"),
    "hadamard": ("x", "op.out"),
    "rope_hadamard_quantise": ("x", "op", "rotated"),
    "append_scaled": (),
    "append_fp8": ("rows.0",),
    "append_latent": ("x", "normed"),
    "append_index_key": ("x", "normed", "op", "rotated"),
}
"""By op: the bf16 values of its rows' whole width."""


def shapes(op: str, d: Dims) -> Shapes:
    """Shape, dtype and strides of every value."""
    rows, width = d["rows"], d["width"]
    shape = (rows, d["heads"], width) if "heads" in d else (rows, width)
    found: Shapes = dict.fromkeys(_WIDE[op], (shape, "bf16", ()))
    scaled = {"quantise": "op.out", "append_scaled": "rows.0"}.get(op, "quantised")
    if op not in ("hadamard", "append_fp8"):
        found[scaled] = (shape, FP8, ())
        found[f"{scaled}:scale"] = ((*shape[:-1], -(-width // FP8_BLOCK)), "f32", ())
    if "norm" in op or op == "append_latent":
        found["weight"] = ((width,), "bf16", ())
    if "add" in op:
        found["sum"] = (shape, "f32", ())
    if op == "append_index_key":
        found |= dict.fromkeys(("weight", "bias"), ((width,), "f32", ()))
    if op in LAYOUT:
        found |= {"cache_in": _cache(op, d), "slots": ((rows,), "i32", ())}
    if op in ("rope_hadamard_quantise", "append_latent", "append_index_key"):
        found["table"] = ((2, rows, d["dim"]), "f32", ())
    if op in ("append_scaled", "append_fp8"):
        found["rows.1"] = ((rows, d["dim"]), "bf16", ())
    if op == "append_latent":
        found |= dict.fromkeys(("k_pe", "op"), ((rows, d["dim"]), "bf16", ()))
    return found


def attributes(op: str, d: Dims) -> list[tuple[str, str, int | float | str]]:
    """Properties of the region's ops: node, name, value."""
    node = "op" if op == "quantise" else "quantised"
    scale_fmt = "fp32" if op == "append_latent" else "ue8m0"
    turned = (("offset", 0), ("dim", d.get("dim", 0)), ("interleaved", _interleaved(op)))
    return [
        ("normed", "eps", EPS),
        (node, "scale_fmt", scale_fmt),
        *(("op", name, value) for name, value in turned),
    ]


def _interleaved(op: str) -> bool:
    return op == "append_latent"


_MADE = ("product", "normed", "sum", "residual_out", "op", "rotated", "op.out", "quantised")


def inputs(op: str, d: Dims, normal: Callable[..., torch.Tensor]) -> Tensors:
    """Normal rows of unlike sizes; slots in random order behind the trash page."""
    found: Tensors = {}
    for name, (shape, dtype, _) in shapes(op, d).items():
        if name.split(":")[0] not in _MADE and dtype not in ("i32", "u8"):
            found[name] = 10 ** normal(*shape[:-1], 1) * normal(*shape)
    if "weight" in found:
        found["weight"] = 1 + 0.1 * normal(d["width"])
    if "table" in found:
        angles = 3 * normal(d["rows"], d["dim"] // 2)
        axis = -1 if _interleaved(op) else -2
        each = ((angles.cos(), angles.cos()), (-angles.sin(), angles.sin()))
        found["table"] = torch.stack([torch.stack(pair, axis).flatten(-2) for pair in each])
    if op in LAYOUT:
        pages = _cache(op, d)[0][0]
        device = normal(1).device
        found["slots"] = PAGE + torch.randperm((pages - 1) * PAGE, device=device)[: d["rows"]]
        found["cache_in"] = torch.zeros(_cache(op, d)[0], device=device)
    if "rows.0:scale" in found:
        found["rows.0:scale"] = found["rows.0:scale"].abs()
    return found


def _numpy(x: torch.Tensor) -> Array:
    if x.dtype == torch.float8_e4m3fn:
        return x.view(torch.uint8).cpu().numpy().view(NUMPY_DTYPES[FP8])
    return x.cpu().numpy() if x.dtype in (torch.uint8, torch.int32) else x.double().cpu().numpy()


def _quantised(x: Array, scale_fmt: str = "ue8m0") -> Scaled:
    return quantise(x, scale_fmt=scale_fmt, dtype=FP8, block=FP8_BLOCK)


def _turned(op: str, x: Array, table: Array) -> Array:
    """The first elements of x [T, ..., D] turned by the table [2, T, dim]."""
    dim = table.shape[-1]
    part, out = x[..., :dim], x.copy()
    pairs = (dim // 2, 2) if _interleaved(op) else (2, dim // 2)
    swapped = np.flip(part.reshape(*part.shape[:-1], *pairs), -1 if _interleaved(op) else -2)
    cosines, sines = (t.reshape(len(x), *(1,) * (x.ndim - 2), dim) for t in table)
    out[..., :dim] = part * cosines + swapped.reshape(part.shape) * sines
    return round_to(out, "bf16")


def _rotated(x: Array) -> Array:
    return round_to(dsa.hadamard(x), "bf16")


def _cached(op: str, d: Dims, rows: list[Array | Scaled], slots: Array) -> Array:
    """[rows, ...]: bytes of an exact op, else numbers, that the slots hold."""
    empty = CacheBytes.zeros(LAYOUT[op], _cache(op, d)[0][0], PAGE, parts(op, d))
    written = empty.written(rows, slots)
    return written.tokens()[slots] if op in _EXACT else written.rows(slots)


def found(op: str, d: Dims, x: Tensors) -> Tensors:
    """What is compared of a case's outputs, by the reference's names."""
    if op == "hadamard":
        return {"op.out": x["op.out"]}
    if op in LAYOUT:
        cache, slots = _numpy(x["cache_in"]), _numpy(x["slots"])
        if op == "append_fp8":
            held: Array = cache.view(np.uint8).reshape(-1, sum(parts(op, d)))[slots]
        else:
            empty = CacheBytes.zeros(LAYOUT[op], cache.shape[0], PAGE, parts(op, d))
            tokens = empty.holding(cache).tokens()[slots]
            held = tokens if op in _EXACT else empty.decode(tokens)
        return {"cache_in": _tensor(held, x["slots"])}
    node = "op.out" if op == "quantise" else "quantised"
    values, scales = _numpy(x[node]), x[f"{node}:scale"].cpu().numpy()
    if op in _EXACT:
        return {node: _bits(values, x[node]), "scale": _bits(scales, x[node])}
    got = {node: _tensor(widen(Scaled(values, scales, 1, FP8_BLOCK)), x[node])}
    return got | {name: x[name] for name in ("residual_out", "normed") if name in x}


def _tensor(x: Array, like: torch.Tensor) -> torch.Tensor:
    """On the same device; bytes by their bits."""
    if x.dtype == np.uint8:
        return _bits(x, like)
    return torch.from_numpy(x.astype(np.float64)).to(like.device)


def _bits(x: Array, like: torch.Tensor) -> torch.Tensor:
    """As i32, which is compared exactly."""
    whole = x.view(np.uint8 if x.itemsize == 1 else np.int32)
    return torch.from_numpy(whole.astype(np.int32)).to(like.device)


def _of_cache(op: str, d: Dims, x: Mapping[str, Array]) -> Array:
    """What the slots must hold."""
    slots = x["slots"]
    if op == "append_scaled":
        first = Scaled(x["rows.0"], x["rows.0:scale"].astype(np.float32), 1, FP8_BLOCK)
        return _cached(op, d, [first, x["rows.1"]], slots)
    if op == "append_fp8":
        return round_to(np.concatenate([x["rows.0"], x["rows.1"]], 1), FP8).view(np.uint8)
    if op == "append_latent":
        normed = round_to(core.rms_norm(x["x"], x["weight"], eps=EPS), "bf16")
        k_pe = _turned(op, x["k_pe"], x["table"])
        return _cached(op, d, [_quantised(normed, "fp32"), k_pe], slots)
    normed = core.layer_norm(x["x"], x["weight"], x["bias"], eps=EPS)
    key = _rotated(_turned(op, widen(round_to(normed, "bf16")), x["table"]))
    return _cached(op, d, [_quantised(key)], slots)


def reference(op: str, d: Dims, stored: Tensors) -> Tensors:
    """What `found` must give for inputs as the buffers hold them."""
    x = {name: _numpy(value) for name, value in stored.items()}
    like = next(iter(stored.values()))
    if op in LAYOUT:
        return {"cache_in": _tensor(_of_cache(op, d, x), like)}
    if op == "quantise":
        made = _quantised(x["x"])
        return {"op.out": _bits(made.values, like), "scale": _bits(made.scales, like)}
    if op == "hadamard":
        return {"op.out": _tensor(dsa.hadamard(x["x"]), like)}
    if op == "silu_mul_quantise":
        made = round_to(core.silu_mul(x["gate"], x["up"]), "bf16")
    elif op == "rope_hadamard_quantise":
        made = _rotated(_turned(op, x["x"], x["table"]))
    else:
        total = x["x"] if op == "rms_norm_quantise" else x["residual"] + x["delta"]
        made = round_to(core.rms_norm(total, x["weight"], eps=EPS), "bf16")
    want = {"quantised": _tensor(widen(_quantised(made)), like)}
    if "residual" in x:
        want["residual_out"] = _tensor(x["residual"] + x["delta"], like)
    if op == "add_rms_norm_and_quantise":
        want["normed"] = _tensor(widen(made), like)
    return want
