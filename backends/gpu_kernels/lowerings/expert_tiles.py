"""Launches of experts over tiles of the pairs that chose them, with or without a shared expert.

Knows no op's pattern and no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.expert_forms import Form, choose_form
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import tiled_flops
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import (
    BLOCKS,
    Terms,
    carve_terms,
    fp8_of,
    num_parts,
    num_terms,
    terms_in,
)
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Argument,
    Carver,
    Tiles,
    encoding,
    i32,
    maps,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Match, Work
from lostwax.backends.portable.lowerings.experts import expert_bytes
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK

_KERNELS = "lostwax.backends.gpu_kernels"
_BLOCK_COLUMNS = 1024
_MOST_PAIRS = 1024  # that a program sorts at once
_MOST_OWN_PAIRS = 16
"""Choices of experts up to which each program of the first product finds its tile's by itself: a
compute unit runs two such programs at most, which costs less than a launch does."""

_SHARED_SCALES = ("shared_gate_scale", "shared_up_scale", "shared_down_scale")


@dataclass(frozen=True, slots=True)
class Places:
    """Workspace of the launches."""

    pair_of_slot: View
    expert_of_tile: View
    hidden: View
    hidden_scale: View
    of_pair: View


def as_rows(view: View) -> View:
    """The matrices of all experts, one below another."""
    if len(view.shape) == 2:
        return view
    experts, rows, columns = view.shape
    return View(
        space=view.space,
        name=view.name,
        dtype=view.dtype,
        shape=(experts * rows, columns),
        strides=(columns, 1),
        offset=view.offset,
    )


@dataclass(frozen=True, slots=True)
class ExpertTiles:
    """What the launches are asked for; operands of a match are named as those of `moe.experts`.

    `node` is that op's, `out` what the sum over a row's pairs is written to. `shared` are gate, up
    and down of the shared expert, of the routed ones' sizes, where there is one.
    """

    name: str
    node: str
    out: str
    shared: tuple[str, str, str] | None = None

    @property
    def num_shared(self) -> int:
        """Shared experts."""
        return 0 if self.shared is None else 1

    def _pairs(self, match: Match) -> int:
        rows, top_k = match.shape("ids")
        return rows * (top_k + self.num_shared)

    def num_tiles(self, match: Match, block_rows: int) -> int:
        """Tiles of so many pairs at most: every expert may leave one that is not full."""
        rows, top_k = match.shape("ids")
        pairs, shared = rows * top_k, self.num_shared * -(-rows // block_rows)
        return min(pairs, match.shape("gate")[0] + pairs // block_rows) + shared

    def _own_pairs(self, match: Match) -> int:
        """The power of two that holds all choices where tiles find theirs themselves, else 0: the
        launch that makes terms places pairs, too."""
        rows, top_k = match.shape("ids")
        choices = next_power_of_two(rows * top_k)
        return choices if match.is_scaled("x") and choices <= _MOST_OWN_PAIRS else 0

    def _places(self, match: Match, form: Form, carver: Carver) -> Places:
        _, inter, dim = match.shape("gate")
        tiles = self.num_tiles(match, form.block_rows)
        slots = tiles * form.block_rows
        return Places(
            carver.take("i32", slots),
            carver.take("i32", tiles),
            carver.take(fp8_of(match), num_terms(match, "x") * slots, inter),
            carver.take("f32", -(-inter // FP8_BLOCK), slots),
            carver.take("f32", self._pairs(match), dim),
        )

    def workspace(self, match: Match, knobs: Knobs) -> int:
        """Bytes of the terms and of what goes between the launches."""
        form, carver = choose_form(match, knobs), Carver(None)
        carve_terms(match, "x", carver)
        self._places(match, form, carver)
        return carver.num_bytes

    def _choices(self, match: Match) -> dict[str, int]:
        """Constants of all kernels that read ids."""
        return {
            "EXPERTS": match.shape("gate")[0],
            "TOP_K": match.shape("ids")[1],
            "SHARED": self.num_shared,
        }

    def _weights(self, match: Match, rows: int, *names: str) -> dict[str, Tiles | View]:
        """Tiles of so many rows and the scales of routed weights, then of the shared ones, or of
        the routed ones in their places."""
        found: dict[str, Tiles | View] = {}
        order = ("gate", "up", "down")
        for prefix in ("", "shared_"):
            for name in names:
                stored = name
                if prefix and self.shared is not None:
                    stored = self.shared[order.index(name)]
                found[prefix + name] = Tiles(as_rows(match.view(stored)), (rows, FP8_BLOCK))
                found[f"{prefix}{name}_scale"] = match.view(f"{stored}:scale")
        return found

    def place(
        self, match: Match, block_rows: int, x: Terms, pair_of_slot: View, expert_of_tile: View
    ) -> Launch:
        """Slots of all pairs in tiles of `block_rows`; the terms of x where it comes in bf16."""
        experts, (rows, top_k) = match.shape("gate")[0], match.shape("ids")
        arguments: dict[str, Argument] = {
            "ids": match.view("ids"),
            "pair_of_slot": pair_of_slot,
            "expert_of_tile": expert_of_tile,
        }
        constants = {
            **self._choices(match),
            "BINS": next_power_of_two(experts),
            "BLOCK_ROWS": block_rows,
            "BLOCK_PAIRS": min(_MOST_PAIRS, max(128, next_power_of_two(rows * top_k))),
        }
        kernel, programs = "place_pairs", experts + self.num_shared
        numbers: dict[str, Argument] = {"tiles": i32(self.num_tiles(match, block_rows))}
        if x.count == 2:
            source, width = match.view("x"), match.shape("x")[1]
            kernel, programs = "place_and_quantise", programs + rows * num_parts(width)
            arguments |= {"x": source, "terms": x.values, "scale": x.scale}
            numbers |= {
                "num_rows": i32(rows),
                "width": i32(width),
                "x_stride": i32(source.strides[0]),
                "scale_row": i32(x.scale_row),
                "scale_block": i32(x.scale_block),
            }
            constants |= {"BLOCK_SCALE": FP8_BLOCK, "BLOCKS": BLOCKS}
            constants |= {**encoding(match.target), "ROUND_FIRST": 0}
        return triton_launch(
            match,
            f"{_KERNELS}.place_pairs:{kernel}",
            arguments | {"real_rows": real_rows(match)} | numbers,
            constants,
            grid=(programs, 1, 1),
            op=self.name,
            rows_of=("width", "x_stride"),
        )

    def _placed(self, match: Match, form: Form, x: Terms, places: Places) -> Launch:
        return self.place(match, form.block_rows, x, places.pair_of_slot, places.expert_of_tile)

    def _gated(self, match: Match, form: Form, x: Terms, places: Places) -> Launch:
        experts, inter, dim = match.shape("gate")
        tiles = self.num_tiles(match, form.block_rows)
        rounded = match.is_scaled("x") and match.attr(self.node, "hidden_fmt") == "ue8m0"
        return triton_launch(
            match,
            f"{_KERNELS}.grouped_experts:gated_tiles",
            {
                "x": x.values,
                "x_scale": x.scale,
                **self._weights(match, FP8_BLOCK, "gate", "up"),
                "hidden": places.hidden,
                "hidden_scale": places.hidden_scale,
                "pair_of_slot": places.pair_of_slot,
                "expert_of_tile": places.expert_of_tile,
                "ids": match.view("ids"),
                "real_rows": real_rows(match),
                "num_rows": i32(match.shape("ids")[0]),
                "tiles": i32(tiles),
                "x_stride": i32(x.values.strides[0]),
                "scale_row": i32(x.scale_row),
                "scale_block": i32(x.scale_block),
            },
            {
                **self._choices(match),
                "INTER": inter,
                "DIM": dim,
                "PAIRS": self._own_pairs(match),
                "BINS": next_power_of_two(experts),
                "BLOCK_ROWS": form.block_rows,
                "BLOCK_SCALE": FP8_BLOCK,
                "GROUP": form.group,
                "TERMS": x.count,
                "POWER_OF_TWO": int(rounded),
                **encoding(match.target),
                **maps(match.target),
                "SWAP": int(form.swap),
                "AHEAD": form.gated_stages if form.ahead else 0,
                "WIDE_DOT": 0,
                "ROUND_FIRST": 0,
            },
            grid=(tiles * -(-inter // FP8_BLOCK), 1, 1),
            op=self.name,
            num_warps=form.gated_warps,
            num_stages=form.gated_stages,
            rows_of=("x_stride",),
            parts=_SHARED_SCALES,
        )

    def _down(self, match: Match, form: Form, terms: int, places: Places) -> Launch:
        experts, inter, dim = match.shape("gate")
        tiles = self.num_tiles(match, form.block_rows)
        return triton_launch(
            match,
            f"{_KERNELS}.grouped_experts:down_tiles",
            {
                "hidden": Tiles(places.hidden, (form.block_rows, FP8_BLOCK)),
                "hidden_scale": places.hidden_scale,
                **self._weights(match, form.down_n, "down"),
                "of_pair": places.of_pair,
                "pair_of_slot": places.pair_of_slot,
                "expert_of_tile": places.expert_of_tile,
                "tiles": i32(tiles),
            },
            {
                "EXPERTS": experts,
                "INTER": inter,
                "DIM": dim,
                "SHARED": self.num_shared,
                "BLOCK_ROWS": form.block_rows,
                "BLOCK_N": form.down_n,
                "BLOCK_SCALE": FP8_BLOCK,
                "GROUP": form.group,
                "TERMS": terms,
                **maps(match.target),
                "SWAP": int(form.swap),
                "AHEAD": form.down_stages if form.ahead else 0,
                "WIDE_DOT": 0,
            },
            grid=(tiles * -(-dim // form.down_n), 1, 1),
            op=self.name,
            num_warps=form.down_warps,
            num_stages=form.down_stages,
            parts=_SHARED_SCALES,
        )

    def combine(self, match: Match, of_pair: View) -> Launch:
        """The sum of what each row's pairs gave, by their weights."""
        dim, rows = match.shape("gate")[2], match.shape("ids")[0]
        out = match.view(self.out)
        return triton_launch(
            match,
            f"{_KERNELS}.place_pairs:combine_pairs",
            {
                "of_pair": of_pair,
                "ids": match.view("ids"),
                "weights": match.view("weights"),
                "out": out,
                "real_rows": real_rows(match),
                "width": i32(dim),
                "out_stride": i32(out.strides[0]),
            },
            {**self._choices(match), "BLOCK": _BLOCK_COLUMNS, "ROUND_FIRST": 0},
            grid=(rows, -(-dim // _BLOCK_COLUMNS), 1),
            op=self.name,
            rows_of=("width", "out_stride"),
        )

    def emit(self, match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        """Places, with terms of bf16 rows, then both products and the sum of each row's."""
        form, carver = choose_form(match, knobs), Carver(match.workspace)
        x = terms_in(match, "x", carve_terms(match, "x", carver))
        places = self._places(match, form, carver)
        placed = () if self._own_pairs(match) else (self._placed(match, form, x, places),)
        return (
            *placed,
            self._gated(match, form, x, places),
            self._down(match, form, x.count, places),
            self.combine(match, places.of_pair),
        )

    def work(self, match: Match, knobs: Knobs) -> Work:
        """Chosen experts once, what goes between the launches written and read, tiles filled up."""
        rows, top_k = match.shape("ids")
        experts, inter, dim = match.shape("gate")
        form, terms, pairs = choose_form(match, knobs), num_terms(match, "x"), rows * top_k
        chosen = experts * (1 - (1 - top_k / experts) ** rows) if top_k < experts else experts
        between = self._pairs(match) * (2 * terms * inter + 8 * dim)
        moved = (chosen + self.num_shared) * expert_bytes(match) + between + 4 * rows * dim
        moved += 2 * terms * rows * dim
        filled = max(chosen * form.block_rows, pairs)
        filled += self.num_shared * -(-rows // form.block_rows) * form.block_rows
        flops = tiled_flops(match, 6 * filled * inter * dim, "x", rows)
        return Work(moved, flops, 3 + (not self._own_pairs(match)))
