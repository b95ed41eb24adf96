"""Steps of several requests for attention to whole contexts: shapes, seeded inputs, references.

On torch alone. Used on two machines: the one that compiles (shapes) and the one with the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mla_cases
import torch
from mla_cases import LATENT, NOPE, PAGE, ROPE, SCALE, VALUE, Shapes, Tensors

from lostwax.ir.contract.cache_layout import row_bytes

PAGES = 32  # of a request: 2,048 positions
CONTEXTS_A_ROW = 4


@dataclass(frozen=True)
class Step:
    """Requests of (cached prefix, new tokens), padded to `rows` and `reqs` of the bucket.

    With `top` each row selects so many of the positions that it sees, at random; else all.
    """

    layout: str
    heads: int
    rows: int
    requests: tuple[tuple[int, int], ...]
    reqs: int = 128
    pages: int = PAGES
    top: int = 0
    knobs: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def real(self) -> int:
        """Rows with a token."""
        return sum(new for _, new in self.requests)

    @property
    def total(self) -> int:
        """Positions of all contexts."""
        return sum(prefix + new for prefix, new in self.requests)

    @property
    def pairs(self) -> int:
        """Of a query row and a key that it sees."""
        return sum(new * prefix + new * (new + 1) // 2 for prefix, new in self.requests)

    @property
    def pool(self) -> int:
        """Pages of the cache, the first of them the trash page."""
        return 1 + sum(-(-(prefix + new) // PAGE) for prefix, new in self.requests)

    @property
    def name(self) -> str:
        """Readable and unique but for the knobs."""
        kinds: dict[tuple[int, int], int] = {}
        for each in self.requests:
            kinds[each] = kinds.get(each, 0) + 1
        said = [f"{n}x{new}@{prefix}" for (prefix, new), n in kinds.items()]
        chosen = f" top={self.top}" if self.top else ""
        return f"{self.layout} heads={self.heads} {' '.join(said)}{chosen}"


def shapes(step: Step) -> Shapes:
    """Shape, dtype and strides of every value of the region (no strides: row-major)."""
    heads, query = step.heads, (step.heads * (NOPE + ROPE), NOPE + ROPE, 1)
    width = row_bytes(step.layout, (LATENT, ROPE))
    row, kind = (width // 2, "bf16") if step.layout == "bf16" else (width, "u8")
    return {
        "q_nope": ((step.rows, heads, NOPE), "bf16", query),
        "q_pe": ((step.rows, heads, ROPE), "bf16", query),
        "kv_b": ((heads * (NOPE + VALUE), LATENT), "bf16", ()),
        "cache_in": ((step.pool, PAGE, row), kind, ()),
        "selection": ((step.rows, step.top or step.pages * PAGE), "i32", ()),
        "positions": ((step.rows,), "i32", ()),
        "q_starts": ((step.reqs + 1,), "i32", ()),
        "page_table": ((step.reqs, step.pages), "i32", ()),
        "op.out": ((step.rows, heads * VALUE), "bf16", ()),
    }


def inputs(step: Step, seed: int, device: torch.device) -> Tensors:
    """Seeded; the cache as bytes. Queries of rows without a token, the trash page and what a page
    holds behind its request's length are NaN. Pages lie in random order."""
    torch.manual_seed(seed)
    new = torch.tensor([n for _, n in step.requests], device=device)
    prefix = torch.tensor([p for p, _ in step.requests], device=device)
    starts = torch.cat([new.new_zeros(1), new.cumsum(0)])
    q_starts = torch.full((step.reqs + 1,), step.real, device=device)
    q_starts[: starts.numel()] = starts
    positions = torch.full((step.rows,), -1, device=device)
    behind = torch.arange(step.real, device=device) - starts[:-1].repeat_interleave(new)
    positions[: step.real] = behind + prefix.repeat_interleave(new)
    width = row_bytes(step.layout, (LATENT, ROPE))
    cache = torch.full((step.pool * PAGE, width), 255, dtype=torch.uint8, device=device)
    order = 1 + torch.randperm(step.pool - 1, device=device)
    page_table = torch.zeros(step.reqs, step.pages, dtype=torch.long, device=device)
    used = 0
    for b, (before, count) in enumerate(step.requests):
        pages = -(-(before + count) // PAGE)
        page_table[b, :pages] = order[used : used + pages]
        used += pages
        slots = slots_of(page_table[b], before + count)
        latent = torch.randn(before + count, LATENT, device=device)
        rope = torch.randn(before + count, ROPE, device=device)
        cache[slots] = mla_cases.encode(step.layout, latent, rope)
    query = torch.randn(step.rows, step.heads, NOPE + ROPE, device=device)
    query[step.real :] = float("nan")
    kv_b = torch.randn(step.heads * (NOPE + VALUE), LATENT, device=device) / LATENT**0.5
    drawn: Tensors = {} if not step.top else {"selection": _selection(step, positions)}
    return drawn | {
        "q_nope": query[..., :NOPE],
        "q_pe": query[..., NOPE:],
        "kv_b": kv_b,
        "cache_in": cache,
        "positions": positions,
        "q_starts": q_starts,
        "page_table": page_table,
    }


def _selection(step: Step, positions: torch.Tensor) -> torch.Tensor:
    """i64 [rows, top]: positions that a row sees, ascending, -1 behind them; of rows without a
    token such as no context has."""
    columns = step.pages * PAGE
    drawn = torch.rand(step.rows, columns, device=positions.device)
    drawn.masked_fill_(torch.arange(columns, device=positions.device) > positions[:, None], 2.0)
    least = drawn.topk(min(step.top, columns), largest=False)
    chosen = torch.where(least.values < 1.5, least.indices, columns).sort(1).values
    chosen = chosen.masked_fill(chosen == columns, -1)
    chosen = torch.nn.functional.pad(chosen, (0, step.top - chosen.shape[1]), value=-1)
    chosen[step.real :] = 1 << 30
    return chosen


def slots_of(pages: torch.Tensor, length: int) -> torch.Tensor:
    """i64 [length]: where a request's positions lie in the pool's rows."""
    position = torch.arange(length, device=pages.device)
    return pages.long()[position // PAGE] * PAGE + position % PAGE


def sampled_rows(step: Step) -> list[int]:
    """First and last rows of requests and of their tiles, and some between."""
    rows: set[int] = set()
    start = 0
    for _, count in step.requests:
        near = [e + d for e in range(0, count + 1, 128) for d in (-1, 0, 63, 64)]
        rows |= {start + i for i in (*near, count - 1) if 0 <= i < count}
        start += count
    listed = sorted(rows)
    return listed[:: max(1, len(listed) // 32)] + listed[-1:]


def reference(step: Step, stored: Tensors, row: int) -> torch.Tensor:
    """f64 [heads, 128] of one row, from inputs as the buffers hold them (the cache as bytes)."""
    request = int((stored["q_starts"][1:] <= row).sum())
    length = int(stored["positions"][row]) + 1
    slots = slots_of(stored["page_table"][request], length)
    if step.top:
        selected = stored["selection"][row]
        slots = slots[selected[selected >= 0].long()]
    raw = stored["cache_in"][slots]
    cached = mla_cases.decode(step.layout, raw)
    weights = stored["kv_b"].double().view(step.heads, -1, LATENT)
    absorbed = torch.einsum("hd,hdc->hc", stored["q_nope"][row].double(), weights[:, :NOPE])
    query = torch.cat([absorbed, stored["q_pe"][row].double()], 1)
    weight = (query @ cached.T * SCALE).softmax(-1)
    return torch.einsum("hc,hvc->hv", weight @ cached[:, :LATENT], weights[:, NOPE:])
