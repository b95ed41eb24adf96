"""Cases of `fp8_products.py`: shapes of DeepSeek-V3.2, settings, inputs and fp64 references.

Knows torch and plain data alone: the machine with the GPU may have no compiler and no IR.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import msgspec
import torch
from fp8_settings import BLOCK, Knobs, expert_settings, linear_settings

LINEAR = {
    "q_a+kv_a": (2112, 7168), "q_b": (24576, 1536), "o": (7168, 16384), "gate_up": (36864, 7168),
    "down": (7168, 18432), "shared gate_up": (4096, 7168), "shared down": (7168, 2048),
}  # fmt: skip
"""N and K."""
EXPERTS = (32, 2048, 7168, 8)
"""Experts of one of eight ranks, their inner width, the model's, and choices a row."""
GATED = {"shared expert": (2048, 2048, 7168), "dense expert": (18432, 18432, 7168)}
"""Outputs of gate and of up, and K."""
PROJECTIONS = (1536, 128, 576, 7168)
"""Outputs of q_a, of the indexer's wk and of kv_a, and K."""
QUERIES = (24576, 8192, 1536)
"""Outputs of q_b and of the indexer's wq_b, and K; 128 heads of 192 and 64 of 128."""
HEADS, HEAD, INDEX_HEADS, INDEX, TURNING = 128, 192, 64, 128, 64
EPS = 1e-6
Tensors = dict[str, torch.Tensor]
Described = tuple[tuple[int, ...], str, str]
"""Shape, dtype, and how the values are scaled: "" not, "square", "row"."""


class ProductCase(msgspec.Struct, frozen=True, kw_only=True):
    """One lowering at one size: `rows` of the bucket, `real` of them with numbers.

    `form` says how activations come: bf16, or fp8 with a scale a row and block. `choice` is how
    rows choose experts.
    """

    op: str
    label: str
    shape: tuple[int, ...]
    rows: int
    real: int
    form: str
    settings: tuple[Knobs, ...] = ({},)
    timed: bool = True
    choice: str = "even"
    many_rows: tuple[Knobs, ...] = ()
    """Settings of Hopper's own kernel for many rows, beside those of the Triton kernels."""
    hidden_fmt: str = "fp32"
    """How scales of what enters an expert's last product are rounded, of form fp8."""

    @property
    def name(self) -> str:
        """Readable and unique."""
        behind = "" if self.real == self.rows else f" real {self.real}"
        chosen = "" if self.choice == "even" else f" {self.choice}"
        return f"{self.label} M={self.rows} {self.form}{behind}{chosen}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Values that the lowering writes."""
        index = "index_quantised" if self.form == "fp8" else "index_turned"
        joined: dict[str, tuple[str, ...]] = {
            "gated": ("act",), "projections": ("q_normed", "k_normed", "kv"),
            "queries": ("q_turned", index),
        }  # fmt: skip
        return joined.get(self.op, ("op.out",))

    def num_bytes(self, own: Tensors) -> float:
        """What must move: weights that are used once, activations in and out."""
        act = 2 if self.form == "bf16" else 1
        if self.op in ("gated", "projections", "queries"):
            *widths, k = self.shape
            out = widths[0] if self.op == "gated" else sum(widths)
            return sum(widths) * k + self.rows * (act * k + 2 * out)
        if self.op == "linear":
            n, k = self.shape
            return n * k + self.rows * (act * k + 2 * n)
        _, inter, dim, _ = self.shape
        chosen = cast("list[int]", own["ids"].flatten().tolist())
        used = len(set(chosen))
        return used * 3 * inter * dim + self.rows * (act + 4) * dim

    @property
    def flops(self) -> float:
        """Useful operations."""
        if self.op != "experts":
            return 2.0 * self.rows * sum(self.shape[:-1]) * self.shape[-1]
        _, inter, dim, top_k = self.shape
        return 6.0 * self.rows * top_k * inter * dim


def values(case: ProductCase) -> dict[str, Described]:
    """Every value of the region."""
    rows, scaled = case.rows, case.form == "fp8"
    k = case.shape[2] if case.op == "experts" else case.shape[-1]
    found: dict[str, Described] = {
        "x": ((rows, k), "f8E4M3FN" if scaled else "bf16", "row" if scaled else "")
    }
    if scaled:
        found["x:scale"] = ((rows, k // BLOCK), "f32", "")
    if case.op == "linear":
        n = case.shape[0]
        found |= _weight("weight", n, k)
        return found | {"op.out": ((rows, n), "bf16", "")}
    if case.op == "queries":
        return found | _queries(case)
    if case.op in ("gated", "projections"):
        gated = case.op == "gated"
        weights = ("w_gate", "w_up") if gated else ("w_q", "w_k", "w_kv")
        for name, width in zip(weights, case.shape, strict=False):
            found[name] = ((width, k), "f8E4M3FN", "square")
        inner = ("gate", "up", "act") if gated else ("q", "k", "kv")
        for name, width in zip(
            inner, (*case.shape[:2], case.shape[0 if gated else 2]), strict=True
        ):
            found[name] = ((rows, width), "bf16", "")
        if not gated:
            found |= {"q_normed": found["q"], "k_normed": found["k"]}
            found["q_weight"] = ((case.shape[0],), "bf16", "")
            found |= dict.fromkeys(("k_weight", "k_bias"), ((case.shape[1],), "bf16", ""))
        return found
    experts, inter, dim, top_k = case.shape
    found |= _weight("gate", experts, inter, dim) | _weight("up", experts, inter, dim)
    found |= _weight("down", experts, dim, inter)
    found |= {"ids": ((rows, top_k), "i32", ""), "weights": ((rows, top_k), "f32", "")}
    return found | {"op.out": ((rows, dim), "f32", "")}


def _queries(case: ProductCase) -> dict[str, Described]:
    rows, index = case.rows, (case.rows, INDEX_HEADS, INDEX)
    found: dict[str, Described] = {
        "q_b": ((rows, HEADS * HEAD), "bf16", ""), "index_flat": (
            (rows, INDEX_HEADS * INDEX), "bf16", ""
        ),
    }  # fmt: skip
    for name, width in zip(("w_q_b", "w_index"), case.shape, strict=False):
        found[name] = ((width, case.shape[-1]), "f8E4M3FN", "square")
    found |= dict.fromkeys(("queries", "q_turned"), ((rows, HEADS, HEAD), "bf16", ""))
    found |= dict.fromkeys(("index", "index_turned", "index_rotated"), (index, "bf16", ""))
    found["index_quantised"] = (index, "f8E4M3FN", "row")
    found["index_quantised:scale"] = ((rows, INDEX_HEADS, 1), "f32", "")
    return found | dict.fromkeys(("table", "index_table"), ((2, rows, TURNING), "f32", ""))


def stored(case: ProductCase) -> dict[str, Described]:
    """Weights that lie behind one another, under the name of the first."""
    first = {"gated": "w_gate", "projections": "w_q", "queries": "w_q_b"}.get(case.op)
    if first is None:
        return {}
    return _weight(first, sum(case.shape[:-1]), case.shape[-1])


def _weight(name: str, *shape: int) -> dict[str, Described]:
    *outer, n, k = shape
    scales = (*outer, -(-n // BLOCK), -(-k // BLOCK))
    return {name: (shape, "f8E4M3FN", "square"), f"{name}:scale": (scales, "f32", "")}


def draw(
    name: str, shape: tuple[int, ...], dtype: str, case: ProductCase | None = None
) -> torch.Tensor:
    """Random numbers for a value, on the GPU; rows behind the real ones are NaN."""
    if dtype == "f8E4M3FN":
        drawn = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda") & 0xBF
        made = drawn.view(torch.float8_e4m3fn)
    elif dtype == "i32":
        assert case is not None
        return _choices(case)
    elif name.endswith(":scale"):
        made = torch.rand(shape, device="cuda") * 0.01 + 1e-3
    elif name == "weights":
        made = torch.rand(shape, device="cuda") + 0.1
    else:
        made = torch.randn(shape, device="cuda").to(torch.bfloat16 if dtype == "bf16" else None)
    if case is not None and name in ("x", "x:scale", "weights"):
        if dtype == "f8E4M3FN":
            made.view(torch.uint8)[case.real :] = 0x7F
        else:
            made[case.real :] = torch.nan
    return made


def _choices(case: ProductCase) -> torch.Tensor:
    experts, _, _, top_k = case.shape
    order = torch.rand(case.rows, experts, device="cuda").argsort(1)[:, :top_k]
    if case.choice == "one takes all":
        order = torch.arange(top_k, device="cuda").expand(case.rows, top_k)
    ids = order.int().contiguous()
    if case.choice == "holes":
        ids[torch.rand(case.rows, top_k, device="cuda") < 0.4] = -1
    return ids


def wide_of(values: torch.Tensor, scale: torch.Tensor, rows: int) -> torch.Tensor:
    """fp64 values of blocks of `rows` by 128."""
    n, k = values.shape
    spread = scale.double().repeat_interleave(rows, 0)[:n].repeat_interleave(BLOCK, 1)[:, :k]
    return values.double() * spread


def product_of(wide: torch.Tensor, given: Tensors, name: str) -> torch.Tensor:
    """wide W^T, some rows of the weight at a time."""
    weight, scale = given[name], given[f"{name}:scale"]
    step = 32 * BLOCK
    parts = [
        wide @ wide_of(weight[i : i + step], scale[i // BLOCK : (i + step) // BLOCK], BLOCK).T
        for i in range(0, weight.shape[0], step)
    ]
    return torch.cat(parts, 1)


def reference(case: ProductCase, given: Tensors) -> torch.Tensor:
    """The real rows of the result in fp64."""
    real, x = case.real, given["x"][: case.real]
    wide = wide_of(x, given["x:scale"][:real], 1) if case.form == "fp8" else x.double()
    if case.op == "gated":
        gate, up = product_of(wide, given, "w_gate").chunk(2, 1)
        return torch.nn.functional.silu(gate) * up
    if case.op == "projections":
        ends = case.shape[0], sum(case.shape[:2])
        q, k, kv = torch.tensor_split(product_of(wide, given, "w_q"), ends, dim=1)
        q = q * (q.square().mean(1, keepdim=True) + EPS).rsqrt() * given["q_weight"].double()
        weight, bias = given["k_weight"].double(), given["k_bias"].double()
        k = torch.nn.functional.layer_norm(k, k.shape[1:], weight, bias, EPS)
        return torch.cat((q, k, kv), 1)
    if case.op == "linear":
        return product_of(wide, given, "weight")
    if case.op == "queries":
        return _turned_queries(case, product_of(wide, given, "w_q_b"), given)
    out = torch.zeros_like(wide)
    for expert in range(case.shape[0]):
        row, slot = torch.nonzero(given["ids"][:real] == expert, as_tuple=True)
        if not row.numel():
            continue
        gate, up, down = (
            wide_of(given[n][expert], given[f"{n}:scale"][expert], BLOCK)
            for n in ("gate", "up", "down")
        )
        hidden = torch.nn.functional.silu(wide[row] @ gate.T) * (wide[row] @ up.T)
        if case.form == "fp8":
            hidden = rounded(hidden, case.hidden_fmt)
        share = given["weights"][row, slot].double()
        out.index_add_(0, row, share[:, None] * (hidden @ down.T))
    return out


def _turned_queries(case: ProductCase, product: torch.Tensor, given: Tensors) -> torch.Tensor:
    """Both queries; the last columns of attention's heads turn, the first of the indexer's."""
    rounded_product = product.to(torch.bfloat16).double()
    q, index = rounded_product[:, : case.shape[0]], rounded_product[:, case.shape[0] :]
    table, index_table = (
        given[name][:, : case.real, None].double() for name in ("table", "index_table")
    )
    q, index = q.view(-1, HEADS, HEAD).clone(), index.view(-1, INDEX_HEADS, INDEX).clone()
    part = q[..., HEAD - TURNING :]
    partner = part.reshape(*part.shape[:-1], -1, 2).flip(-1).flatten(-2)
    q[..., HEAD - TURNING :] = part * table[0] + partner * table[1]
    part = index[..., :TURNING]
    index[..., :TURNING] = part * index_table[0] + part.roll(TURNING // 2, -1) * index_table[1]
    if case.form == "fp8":
        index = index.to(torch.bfloat16).double() @ rotation(INDEX)
    return torch.cat((q.flatten(1), index.flatten(1)), 1)


def rotation(width: int) -> torch.Tensor:
    """f64 [width, width]: Sylvester's matrix over the root of the width."""
    signs = torch.ones(1, 1, dtype=torch.float64, device="cuda")
    while signs.shape[0] < width:
        signs = torch.cat((torch.cat((signs, signs), 1), torch.cat((signs, -signs), 1)))
    return signs / width**0.5


def found_in(case: ProductCase, own: Tensors) -> torch.Tensor:
    """What the lowering wrote, as a matrix of numbers."""
    parts: list[torch.Tensor] = []
    for name in case.outputs:
        out = own[name]
        if (scale := own.get(f"{name}:scale")) is not None:
            out = out.double() * scale.double()
        parts.append(out.flatten(1).double())
    return torch.cat(parts, 1)


def quantised(x: torch.Tensor, scale_fmt: str = "fp32") -> tuple[torch.Tensor, torch.Tensor]:
    """e4m3 [n, k] and f32 scales [n, k / 128], as `quant.quantise` has them."""
    blocks = x.float().view(x.shape[0], -1, BLOCK)
    scale = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-4) / 448.0
    if scale_fmt == "ue8m0":
        scale = torch.exp2(torch.log2(scale).ceil())
    return (blocks / scale).to(torch.float8_e4m3fn).view(x.shape), scale[..., 0]


def rounded(x: torch.Tensor, scale_fmt: str = "fp32") -> torch.Tensor:
    """fp64 [n, k] of what `quantised` gives."""
    return wide_of(*quantised(x, scale_fmt), 1)


def _edges(form: str) -> Iterator[ProductCase]:
    for rows, real in ((4, 4), (64, 33), (128, 1), (256, 200)):
        yield _linear("q_a+kv_a", rows, form, real=real, timed=False)
        yield _experts(rows, form, real=real, timed=False)
        yield _joined("gated", "shared expert", GATED["shared expert"], rows, form, real)
        yield _joined("projections", "projections", PROJECTIONS, rows, form, real)
    for choice in ("one takes all", "holes"):
        yield _experts(64, form, choice=choice, timed=False)
        yield _experts(256, form, choice=choice, timed=False)


def cases() -> Iterator[ProductCase]:
    """Edge contents first, for being right; then the timed ones, decode before prefill."""
    yield from _edges("bf16")
    yield from _edges("fp8")
    for rows in (1, 16, 64, 128):
        for form in ("bf16", "fp8"):
            yield _joined("projections", "projections", PROJECTIONS, rows, form)
            for label, shape in GATED.items():
                yield _joined("gated", label, shape, rows, form)
            yield _experts(rows, form)
            for label in LINEAR:
                yield _linear(label, rows, form)
    for rows in (1024, 4096):
        for form in ("bf16", "fp8"):
            yield _experts(rows, form)
            for label in ("q_b", "o", "gate_up"):
                yield _linear(label, rows, form)


def _linear(
    label: str, rows: int, form: str, real: int | None = None, timed: bool = True
) -> ProductCase:
    shape = LINEAR[label]
    settings: tuple[Knobs, ...] = ({},)
    if timed:
        settings = ({}, *linear_settings(rows, form, *shape))
    return ProductCase(
        op="linear", label=label, shape=shape, rows=rows, real=real or rows, form=form,
        settings=settings, timed=timed,
    )  # fmt: skip


def _joined(
    op: str, label: str, shape: tuple[int, ...], rows: int, form: str, real: int | None = None
) -> ProductCase:
    settings: tuple[Knobs, ...] = ({},)
    if real is None:
        settings += tuple(linear_settings(rows, form, sum(shape[:-1]), shape[-1]))
    return ProductCase(
        op=op, label=label, shape=shape, rows=rows, real=real or rows, form=form,
        settings=settings, timed=real is None,
    )  # fmt: skip


def _experts(
    rows: int, form: str, real: int | None = None, timed: bool = True, choice: str = "even"
) -> ProductCase:
    settings: tuple[Knobs, ...] = ({},)
    if timed:
        settings = ({}, *expert_settings(rows))
    return ProductCase(
        op="experts", label="experts", shape=EXPERTS, rows=rows, real=real or rows, form=form,
        settings=settings, timed=timed, choice=choice,
    )  # fmt: skip
