"""Attention over the latent cache beside FlashMLA, and over whole contexts beside torch's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mha_cases
import mla_cases
import torch
from mla_cases import LATENT, NOPE, PAGE, POOL_PAGES, ROPE, SCALE, VALUE, Cell
from op_grid import OpCase, PlannedOp
from op_memory import Given, Tensors
from op_trial import Peer, Peers, Trial, count_sets, step_inputs

from lostwax.backends.runtime.form_weight import SourceTensors
from lostwax.ir.contract.cache_layout import row_bytes

KV_B = "self_attn.kv_b_proj.weight"
BOUND, EXPANDED_BOUND = 6e-3, 1e-2
EXPANDED = "sm90_masked_mha"
"""What the planner chooses for prompts of a few times TOP_K: it attends to all keys under bits."""
LEAST_HEADS = 64
"""FlashMLA takes 64 or 128 heads: fewer are padded."""
SAMPLED = 5


def _cell(case: OpCase) -> Cell:
    prompt = case.segment == "extend"
    pages = -(-case.context // PAGE)
    return Cell(
        "fp8_656" if case.form == "fp8" else "bf16",
        case.heads,
        case.rows,
        rows_a_req=case.rows if prompt else 1,
        pages=pages,
        pool=1 + pages if prompt else POOL_PAGES,
    )


def _weight(heads: int) -> torch.Tensor:
    return (torch.randn(heads * (NOPE + VALUE), LATENT, device="cuda") / LATENT**0.5).bfloat16()


def _slots(given: Tensors, cell: Cell) -> torch.Tensor:
    """i32 [rows, top]: where selected rows lie in the pool, -1 for none."""
    chosen = given["selection"].long()
    request = torch.arange(cell.rows, device="cuda") // cell.rows_a_req
    page = given["page_table"].long()[request].gather(1, chosen.clamp(min=0) // PAGE)
    return torch.where(chosen >= 0, page * PAGE + chosen % PAGE, -1).int()


class Attend:
    """Keeps a pool of pages for all decode sizes."""

    def __init__(self) -> None:
        self._pool = torch.empty(0, device="cuda")
        self._kind = ("", 0)

    def _fill(self, cell: Cell) -> torch.Tensor:
        if self._kind != (cell.layout, cell.pool):
            self._pool = torch.empty(0, device="cuda")
            width = row_bytes(cell.layout, (LATENT, ROPE))
            self._pool = torch.empty(cell.pool * PAGE, width, dtype=torch.uint8, device="cuda")
            mla_cases.fill_pool(self._pool, cell.layout)
            self._kind = cell.layout, cell.pool
        return self._pool

    def open(self, op: PlannedOp, peers: Peers) -> Trial:
        """Other rows of the pool in each set; a set has a weight of its own."""
        case = op.case
        cell = _cell(case)
        pool = self._fill(cell)
        device = torch.device("cuda")
        count = count_sets(cell.read_bytes, 150) if case.segment == "decode" else 1
        weights = [_weight(case.heads) for _ in range(min(count, 4))]
        sets: list[Given] = []
        for i in range(count):
            first = 1 + i * cell.reqs * cell.pages % (cell.pool - 1)
            drawn = mla_cases.inputs(cell, 100 + i, device, first_page=first)
            values: Tensors = {
                name: value.bfloat16() if value.is_floating_point() else value.int()
                for name, value in drawn.items()
            }
            weight = {KV_B: SourceTensors(weights[i % len(weights)])}
            sets.append(Given(step_inputs(case, device) | values | {"cache_in": pool}, weight))
        rows = list(range(0, case.rows, max(1, case.rows // SAMPLED)))

        def want() -> Tensors:
            stored = sets[0].values | {"kv_b": sets[0].weights[KV_B].values}
            each = [mla_cases.reference(cell, stored, pool, row).flatten() for row in rows[1:]]
            large = mla_cases.reference(cell, stored, pool, rows[0]).flatten()
            found = torch.stack(each) if each else large[None]
            return {"out.0": found, "peer": found}

        def sampled(out: torch.Tensor) -> torch.Tensor:
            return out[rows[1:] or rows].reshape(len(rows[1:]) or 1, -1)

        return Trial(
            sets=sets,
            want=want,
            bound=_bound(op, len(rows)),
            peer=_flash(peers, op, cell, sets, pool, sampled),
            found=lambda outputs: {"out.0": sampled(outputs["out.0"])},
        )


def _bound(op: PlannedOp, rows: int) -> float:
    if rows == 1:
        return 3e-2  # the one row is the large one
    return EXPANDED_BOUND if EXPANDED in op.lowerings else BOUND


def _flash(
    peers: Peers,
    op: PlannedOp,
    cell: Cell,
    sets: list[Given],
    pool: torch.Tensor,
    sampled: Callable[[torch.Tensor], torch.Tensor],
) -> Peer | None:
    """FlashMLA between torch's batched products, which bring queries in and results out.

    Where ours is the expanded form, no kernel of it does what FlashMLA's call does: then all of
    both is compared.
    """
    flash_mla = peers.get("flash_mla")
    if flash_mla is None:
        return None
    made = [_FlashSet(flash_mla, cell, given, pool) for given in sets]
    for each in made:
        each.absorb()
        each.attend()  # plans are made at the first call

    def found() -> Tensors:
        made[0].absorb()
        made[0].attend()
        return {"peer": sampled(made[0].expand())}

    if EXPANDED in op.lowerings:
        return Peer("FlashMLA", [each.whole for each in made], found)
    return Peer(
        "FlashMLA",
        [each.attend for each in made],
        found,
        core="sm90_sparse_mla",
        around=[each.whole for each in made],
    )


class _FlashSet:
    def __init__(self, flash_mla: Any, cell: Cell, given: Given, pool: torch.Tensor) -> None:
        self._flash, self._cell = flash_mla, cell
        values = given.values
        heads = max(cell.heads, LEAST_HEADS)
        weight = given.weights[KV_B].values.view(cell.heads, NOPE + VALUE, LATENT)
        self._key, self._value = weight[:, :NOPE], weight[:, NOPE:].mT
        self._query = torch.zeros(
            cell.rows, heads, LATENT + ROPE, dtype=torch.bfloat16, device="cuda"
        )
        self._query[:, : cell.heads, LATENT:] = values["q_pe"]
        self._nope = values["q_nope"].transpose(0, 1).contiguous()
        self._slots = _slots(values, cell)[:, None]
        self._out = self._query[..., :LATENT]
        if cell.layout == "bf16":
            self._kv = pool.view(torch.bfloat16).view(-1, 1, LATENT + ROPE)
        else:
            self._kv = pool.view(-1, PAGE, 1, pool.shape[1])
            self._plan = flash_mla.get_mla_metadata()[0]

    def absorb(self) -> None:
        """The latent query of each head."""
        made = torch.bmm(self._nope, self._key).transpose(0, 1)
        self._query[:, : self._cell.heads, :LATENT] = made

    def attend(self) -> None:
        """The peer's own part."""
        if self._cell.layout == "bf16":
            self._out = self._flash.flash_mla_sparse_fwd(
                self._query, self._kv, self._slots, SCALE, LATENT, use_legacy=True
            )[0]
            return
        out, _ = self._flash.flash_mla_with_kvcache(
            self._query[:, None], self._kv, None, None, LATENT, self._plan,
            softmax_scale=SCALE, is_fp8_kvcache=True, indices=self._slots, use_legacy=True,
        )  # fmt: skip
        self._out = out[:, 0]

    def expand(self) -> torch.Tensor:
        """[rows, heads * 128]."""
        latent = self._out[:, : self._cell.heads].transpose(0, 1)
        return torch.bmm(latent, self._value).transpose(0, 1).reshape(self._cell.rows, -1)

    def whole(self) -> None:
        """With what stands around it."""
        self.absorb()
        self.attend()
        self.expand()


class WholeContexts:
    """Prompts that see each position before them."""

    def open(self, op: PlannedOp, peers: Peers) -> Trial:
        """New requests of equal length."""
        case = op.case
        device = torch.device("cuda")
        length = case.context
        step = mha_cases.Step(
            "bf16", case.heads, case.rows, ((0, length),) * case.reqs, reqs=case.reqs
        )
        drawn = mha_cases.inputs(step, 1, device)
        weight = drawn.pop("kv_b").bfloat16()
        values: Tensors = step_inputs(case, device) | {
            name: value.bfloat16()
            if value.is_floating_point()
            else value
            if value.dtype == torch.uint8
            else value.int()
            for name, value in drawn.items()
        }
        given = Given(values, {KV_B: SourceTensors(weight)})
        rows = mha_cases.sampled_rows(step)[-12:]

        def want() -> Tensors:
            stored = values | {"kv_b": weight}
            each = [mha_cases.reference(step, stored, row).flatten() for row in rows]
            return {"out.0": torch.stack(each), "peer": torch.stack(each)}

        return Trial(
            sets=[given],
            want=want,
            bound=EXPANDED_BOUND,
            peer=_torch(step, values, weight, rows),
            found=lambda outputs: {"out.0": outputs["out.0"][rows].reshape(len(rows), -1)},
        )


def _torch(step: mha_cases.Step, values: Tensors, weight: torch.Tensor, rows: list[int]) -> Peer:
    """torch's attention over keys and values that are there; with it, cuBLAS makes them before."""
    reqs, length = len(step.requests), step.requests[0][1]
    cache = values["cache_in"].contiguous().view(torch.bfloat16).view(-1, LATENT + ROPE)
    slots = [mha_cases.slots_of(pages, length) for pages in values["page_table"]]
    latents = cache[torch.cat(slots)]

    def expand() -> tuple[torch.Tensor, torch.Tensor]:
        made = (latents[:, :LATENT] @ weight.T).view(reqs, length, step.heads, NOPE + VALUE)
        rope = latents[:, LATENT:].view(reqs, length, 1, ROPE).expand(-1, -1, step.heads, -1)
        keys = torch.cat((made[..., :NOPE], rope), -1).transpose(1, 2)
        return keys, made[..., NOPE:].transpose(1, 2)

    query = torch.cat((values["q_nope"], values["q_pe"]), -1)
    query = query.view(reqs, length, step.heads, NOPE + ROPE).transpose(1, 2)
    attend = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=True, scale=SCALE)
    keys, spread = expand()
    held = spread.contiguous()

    def found() -> Tensors:
        out = attend(query, keys, held).transpose(1, 2).reshape(step.rows, -1)
        return {"peer": out[rows]}

    return Peer(
        "torch SDPA",
        [partial(attend, query, keys, held)],
        found,
        core="sm90_causal_mha",
        counts=True,
        around=[lambda: attend(query, *expand())],
    )
