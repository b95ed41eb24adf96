"""Cells of sparse MLA decode: shapes, seeded inputs over a pool of pages, fp64 references.

On torch alone. Used on two machines: the one that compiles (shapes) and the one with the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lostwax.ir.contract.cache_layout import row_bytes

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[tuple[int, ...], str, tuple[int, ...]]]  # shape, dtype, strides
SCALE = 0.1352337788  # 192^-0.5 m^2 of DeepSeek-V3.2
NOPE, ROPE, LATENT, VALUE, PAGE = 128, 64, 512, 128, 64
POOL_PAGES = 1 + 128 * 512  # 128 requests of 32,768 positions, and the trash page
LARGE_ROW = 0  # a query whose scores reach 100, where a rounding of it weighs most
KINDS = ("full", "tail", "holes", "empty")


@dataclass(frozen=True)
class Cell:
    """One size: `rows` of a step, `rows_a_req` of each request, `pages` of each; `real` rows.
    The cache has `pool` pages, the first of them the trash page."""

    layout: str
    heads: int
    rows: int
    rows_a_req: int = 1
    pages: int = 512
    top: int = 2048
    padding: int = 0
    dense: bool = False
    kind: str = "full"
    pool: int = POOL_PAGES
    knobs: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def reqs(self) -> int:
        """Requests of the bucket."""
        return self.rows // self.rows_a_req

    @property
    def real(self) -> int:
        """Rows with a token."""
        return self.rows - self.padding

    @property
    def name(self) -> str:
        """Readable and unique."""
        more = [f"verify={self.rows_a_req}"] if self.rows_a_req > 1 else []
        more += [self.kind] if self.kind != "full" else []
        more += [f"{k}:{v}" for k, v in self.knobs.items()]
        op = "all" if self.dense else "sparse"
        return " ".join([op, self.layout, f"heads={self.heads} b={self.rows}", *more])

    @property
    def read_bytes(self) -> int:
        """Of the cache, each selected row once."""
        return self.rows * self.top * row_bytes(self.layout, (LATENT, ROPE))


def shapes(cell: Cell) -> Shapes:
    """Shape, dtype and strides of every value of the region (no strides: row-major)."""
    heads, query = cell.heads, (cell.heads * (NOPE + ROPE), NOPE + ROPE, 1)
    width = row_bytes(cell.layout, (LATENT, ROPE))
    row, kind = (width // 2, "bf16") if cell.layout == "bf16" else (width, "u8")
    return {
        "q_nope": ((cell.rows, heads, NOPE), "bf16", query),
        "q_pe": ((cell.rows, heads, ROPE), "bf16", query),
        "kv_b": ((heads * (NOPE + VALUE), LATENT), "bf16", ()),
        "cache_in": ((cell.pool, PAGE, row), kind, ()),
        "selection": ((cell.rows, cell.top), "i32", ()),
        "positions": ((cell.rows,), "i32", ()),
        "q_starts": ((cell.reqs + 1,), "i32", ()),
        "page_table": ((cell.reqs, cell.pages), "i32", ()),
        "op.out": ((cell.rows, heads * VALUE), "bf16", ()),
    }


def num_bytes(shape: tuple[int, ...], strides: tuple[int, ...], width: int) -> int:
    """From the first element to the last, of `width` bytes each; no strides means row-major."""
    if not strides:
        return torch.Size(shape).numel() * width
    return (sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1) * width


def encode(layout: str, latent: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """u8 [n, row_bytes] of latents [n, 512] and ropes [n, 64] in f32."""
    if layout == "bf16":
        return torch.cat([latent, rope], 1).bfloat16().view(torch.uint8)
    fp8 = torch.float8_e4m3fn
    if layout == "fp8_576":
        return torch.cat([latent, rope], 1).clamp(-448, 448).to(fp8).view(torch.uint8)
    blocks = latent.view(-1, 4, 128)
    scale = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-4) / 448
    scale = scale * (1 + torch.rand_like(scale))  # no power of two: what is hardest to be right on
    first = (blocks / scale).to(fp8).view(torch.uint8).view(-1, 512)
    tail = rope.bfloat16().view(torch.uint8)
    return torch.cat([first, scale.view(-1, 4).view(torch.uint8), tail], 1)


def decode(layout: str, raw: torch.Tensor) -> torch.Tensor:
    """f64 [n, 576] of u8 [n, row_bytes]."""
    if layout == "bf16":
        return raw.contiguous().view(torch.bfloat16).double()
    fp8 = torch.float8_e4m3fn
    if layout == "fp8_576":
        return raw.contiguous().view(fp8).double()
    scale = raw[:, 512:528].contiguous().view(torch.float32).double()
    first = raw[:, :512].contiguous().view(fp8).double().view(-1, 4, 128) * scale[:, :, None]
    return torch.cat([first.flatten(1), raw[:, 528:].contiguous().view(torch.bfloat16).double()], 1)


def fill_pool(pool: torch.Tensor, layout: str) -> None:
    """Random rows everywhere, for timing: pool u8 [rows, row_bytes]."""
    for start in range(0, pool.shape[0], 1 << 18):
        part = pool[start : start + (1 << 18)]
        n = part.shape[0]
        latent = torch.randn(n, LATENT, device=pool.device)
        part.copy_(encode(layout, latent, torch.randn(n, ROPE, device=pool.device)))


def _selection(cell: Cell, positions: torch.Tensor) -> torch.Tensor:
    """i64 [rows, top]: distinct visible positions, ascending, -1 behind (or between) them."""
    rows, top, device = cell.rows, cell.top, positions.device
    columns = cell.pages * PAGE
    order = torch.arange(columns, device=device)
    drawn = torch.rand(rows, columns, device=device)
    drawn = drawn.masked_fill(order > positions[:, None], 2.0)
    least = drawn.topk(min(top, columns), largest=False)
    chosen = torch.where(least.values < 1.5, least.indices, columns).sort(1).values
    chosen = torch.where(chosen < columns, chosen, -1)
    chosen = torch.nn.functional.pad(chosen, (0, top - chosen.shape[1]), value=-1)
    place = torch.arange(top, device=device)
    if cell.kind == "tail":
        count = (torch.arange(rows, device=device) * 331 + 77) % top
        chosen = chosen.masked_fill(place >= count[:, None], -1)
    if cell.kind == "holes":
        chosen = chosen.masked_fill(torch.rand(rows, top, device=device) < 0.3, -1)
    if cell.kind == "empty":
        chosen[0] = -1
        chosen[-1 - cell.padding, 5:] = -1
    return chosen


def inputs(cell: Cell, seed: int, device: torch.device, first_page: int = 1) -> Tensors:
    """Seeded inputs but the cache; pages in random order from `first_page` of the pool on."""
    torch.manual_seed(seed)
    rows, heads = cell.rows, cell.heads
    context = cell.pages * PAGE
    lengths = torch.full((cell.reqs,), context, device=device)
    if cell.kind == "tail" or cell.dense:
        lengths = torch.randint(cell.rows_a_req, context + 1, (cell.reqs,), device=device)
        lengths[0] = context
    behind = torch.arange(rows, device=device) % cell.rows_a_req - cell.rows_a_req
    positions = lengths.repeat_interleave(cell.rows_a_req) + behind
    positions[cell.real :] = -1
    available = cell.pool - 1
    table = torch.randperm(cell.reqs * cell.pages, device=device).view(cell.reqs, cell.pages)
    query = torch.randn(rows, heads, NOPE + ROPE, device=device)
    query[LARGE_ROW] *= 20
    starts = torch.arange(cell.reqs + 1, device=device) * cell.rows_a_req
    return {
        "q_nope": query[..., :NOPE],
        "q_pe": query[..., NOPE:],
        "selection": _selection(cell, positions),
        "positions": positions,
        "q_starts": starts.clamp(max=cell.real),
        "page_table": 1 + (first_page - 1 + table) % available,
    }


def keys_of(cell: Cell, given: Tensors, row: int) -> torch.Tensor:
    """i64 [n]: where the selected rows of a query row lie in the pool's rows."""
    position = int(given["positions"][row])
    if cell.dense:
        chosen = torch.arange(min(position + 1, cell.top), device=given["positions"].device)
    else:
        chosen = given["selection"][row][given["selection"][row] >= 0].long()
    page = given["page_table"][row // cell.rows_a_req].long()[chosen // PAGE]
    return page * PAGE + chosen % PAGE


def reference(cell: Cell, given: Tensors, pool: torch.Tensor, row: int) -> torch.Tensor:
    """f64 [heads, 128]: one row's result for inputs as the buffers hold them."""
    weights = given["kv_b"].double().view(cell.heads, -1, LATENT)
    slots = keys_of(cell, given, row)
    if slots.numel() == 0:
        return torch.zeros(cell.heads, VALUE, dtype=torch.float64, device=pool.device)
    cached = decode(cell.layout, pool[slots])
    absorbed = torch.einsum("hd,hdc->hc", given["q_nope"][row].double(), weights[:, :NOPE])
    query = torch.cat([absorbed, given["q_pe"][row].double()], 1)
    weight = (query @ cached.T * SCALE).softmax(-1)
    return torch.einsum("hc,hvc->hv", weight @ cached[:, :LATENT], weights[:, NOPE:])
