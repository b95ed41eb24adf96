"""Inputs of a golden probe: step inputs and choices kept, all else drawn from seeds. Runs nothing.

The reference gets the drawn numbers where it reads them, and no others are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from xdsl.ir import SSAValue

from lostwax.backends.proof.inputs import (
    REAL_FIELDS,
    STEP_FIELDS,
    WEIGHTS,
    Role,
    named_inputs,
    roles,
)
from lostwax.backends.proof.poison import cached_tokens, holds_nan, real_rows
from lostwax.backends.proof.run_alone import Alone
from lostwax.backends.proof.sample_region import RegionSample, scaled_part
from lostwax.backends.proof.sample_rows import RowSample, sample_rows, step_input
from lostwax.backends.proof.step_cases import StepCase
from lostwax.backends.runtime.draw import UNIT, At, array_of, cache_of, kept, taken
from lostwax.ir.contract.probe import (
    Data,
    Drawn,
    DrawnBits,
    DrawnCache,
    DrawnScores,
    DrawnSelection,
    Given,
    GivenPart,
    GivenWeight,
    Kept,
)
from lostwax.ir.contract.program import Launch, views_of
from lostwax.ir.contract.step import STEP_INPUTS
from lostwax.ir.reference.dtype import LARGEST, Array, Value, dtype_name
from lostwax.ir.reference.interpret import Bound
from lostwax.ir.region import RegionMatch
from lostwax.ir.types import CacheType, TensorType

NEAR_ONE: frozenset[Role] = frozenset({("core.rms_norm", "weight"), ("core.layer_norm", "weight")})
LOGITS: frozenset[Role] = frozenset(
    (f"sample.{verb}", "logits")
    for verb in ("pick", "penalise", "bias", "mask", "nucleus", "logprob", "score")
)
"""Drawn three times as wide: some ids are likely."""
COUNTED = (5, 300)
"""Sequences and ids with counts of their own."""
EXPERTS_READ = 3
"""Experts that sampled rows weigh: the first, the last and one inside."""


@dataclass(frozen=True)
class Logical:
    """A logical value as it is drawn, with its block scales where it has any."""

    values: Data
    scales: Data | None = None
    rows: int = 1
    cols: int = 1

    def at(self, axes: At) -> Value:
        """The value at the indexes of each axis."""
        if self.scales is None:
            return array_of(self.values, axes)
        assert isinstance(self.values, Drawn)
        whole = [*axes, *[None] * (len(self.values.shape) - len(axes))]
        made = array_of(self.values, whole)
        return scaled_part(made, array_of(self.scales), whole, self.rows, self.cols)


@dataclass(frozen=True)
class ProbeInputs:
    """What the buffers hold, and the same as values for the reference of the samples.

    `elements` counts what was drawn for the reference.
    """

    given: tuple[Given, ...]
    weights: tuple[GivenWeight, ...]
    values: dict[SSAValue, Bound]
    sample: RegionSample

    @property
    def rows(self) -> RowSample:
        """The sampled rows."""
        return self.sample.rows


class TooLarge(ValueError):
    """The samples' reference reads more, or the probe draws more, than may be."""


def _seed(case: StepCase, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{case.seed} {name}".encode()).digest()[:6], "little")


def probe_inputs(
    alone: Alone, launches: tuple[Launch, ...], case: StepCase, most_elements: int | None = None
) -> ProbeInputs:
    """Inputs for all buffers that the launches read, and values for the region's reference.

    Raises TooLarge where the reference would read more than `most_elements`, NotImplementedError
    for an operand that nothing here can draw.
    """
    match, operands = alone.candidate.region, alone.candidate.weight_operands
    maker = _Maker(alone, sample_rows(match, case, alone.candidate.segment))
    inputs = {n: v for n, v in named_inputs(match).items() if n not in operands}
    drawn = {value: maker.logical(name, value) for name, value in inputs.items()}
    named = {value: maker.whole_index(value, each) for value, each in drawn.items()}
    sample = RegionSample(match, maker.rows, {v: n for v, n in named.items() if n is not None})
    parts = _weight_parts(alone, case)
    for operand, weight in operands.items():
        bound = match.values[operand]
        assert isinstance(bound, SSAValue)  # weights are never variadic
        drawn[bound] = parts[weight]
    _require_small(drawn, sample, most_elements)
    values = {value: maker.value(value, each, sample) for value, each in drawn.items()}
    used = frozenset(view.name for launch in launches for view in views_of(launch))
    given = [g for n, value in inputs.items() for g in _given(n, drawn[value], match, value, case)]
    for name in STEP_INPUTS:
        if f"step.{name}" in used:
            array = case.inputs[name]
            given.append(Given(name=f"step.{name}", data=kept(array, dtype_name(array))))
    return ProbeInputs(tuple(given), _weights(alone, parts, used), values, sample)


def _given(
    name: str, drawn: Logical, match: RegionMatch, value: SSAValue, case: StepCase
) -> list[Given]:
    """A value and its scales; what the step leaves undefined of them is NaN."""
    if isinstance(value.type, CacheType):
        held = tuple(int(n) for n in cached_tokens(case))
        return [Given(name=name, data=drawn.values, held=held)]
    real = real_rows(value.type, case) if holds_nan(match, value) else None
    found = [Given(name=name, data=drawn.values, real=real)]
    if drawn.scales is not None:
        found.append(Given(name=f"{name}:scale", data=drawn.scales, real=real))
    return found


def _require_small(
    drawn: Mapping[SSAValue, Logical], sample: RegionSample, most: int | None
) -> None:
    elements = 0
    for value, each in drawn.items():
        data, axes = each.values, sample.drawn.get(value, ())
        shape = (data.pages,) if isinstance(data, DrawnCache) else data.shape
        whole = [*axes, *[None] * (len(shape) - len(axes))]
        elements += prod(n if w is None else w.size for n, w in zip(shape, whole, strict=True))
    if most is not None and elements > most:
        raise TooLarge(
            f"too large for a probe (its samples follow from {elements:.1e} numbers): run"
            " `lostwax certify ARTIFACT` on the device"
        )


@dataclass(frozen=True)
class _Maker:
    """Draws one region's boundary inputs by type and role."""

    alone: Alone
    rows: RowSample

    @property
    def _case(self) -> StepCase:
        return self.rows.full

    def logical(self, name: str, value: SSAValue) -> Logical:
        """What an input that is no weight is to hold."""
        kind, used = value.type, roles(self.alone.candidate.region, value)
        seed = _seed(self._case, name)
        if isinstance(kind, CacheType):
            return Logical(self._cache(kind, seed))
        assert isinstance(kind, TensorType)
        shape, dtype = kind.at(self._case.env), kind.dtype_name
        step = self._step_input(kind, used)
        if step is not None:
            return Logical(kept(self._case.inputs[step], dtype))
        if used & {("moe.experts", "ids"), ("moe.experts", "weights")}:
            ids, weights = self._experts(shape)
            array = ids if dtype.startswith("i") else weights
            return Logical(kept(array, dtype))
        if ("mla.attend", "selection") in used:
            return Logical(DrawnSelection(shape=shape, seed=seed, visible=self._visible()))
        if ("dsa.topk", "logits") in used:
            return Logical(DrawnScores(shape=shape, seed=seed, visible=self._visible()))
        if ("sample.penalise", "counts") in used:
            return Logical(_counts(shape, seed))
        if ("sample.mask", "masks") in used:
            return Logical(DrawnBits(shape=shape, seed=seed))
        if dtype.startswith("i"):
            raise NotImplementedError(
                f"no way to draw integers for {sorted(used)}; add the role to proof/probe_inputs.py"
            )
        if kind.block_scale is not None:
            return _scaled(kind, shape, seed, edges=True)
        low, high = _range(shape, used)
        edges = not used & (NEAR_ONE | WEIGHTS)
        return Logical(Drawn(shape=shape, dtype=dtype, seed=seed, low=low, high=high, edges=edges))

    def _visible(self) -> tuple[int, ...]:
        """How many positions each row sees."""
        return tuple(int(p) + 1 for p in self._case.inputs["positions"])

    def _step_input(self, kind: TensorType, used: set[Role]) -> str | None:
        for _, field in sorted(used):
            known = STEP_FIELDS.get(field) is not None
            if known and (kind.dtype_name.startswith("i") or field in REAL_FIELDS):
                return step_input(field, kind, self.rows.axes)
        return None

    def _cache(self, kind: CacheType, seed: int) -> Data:
        pages, tokens = self._case.env["N"], kind.page_tokens.data
        element = kind.form.element
        if element is None:
            return DrawnCache(
                layout=kind.layout.data, row=kind.row, page_tokens=tokens, pages=pages, seed=seed
            )
        shape = (pages, tokens, sum(kind.row))
        return Drawn(shape=shape, dtype=element, seed=seed, low=-UNIT, high=UNIT)

    def _experts(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Ids [T, K], distinct in a row, and their weights.

        Sampled rows weigh two experts of the few that the reference reads, and name others with
        weight 0.
        """
        count, k = _num_experts(self.alone, self._case), shape[1]
        rng = np.random.Generator(np.random.Philox(key=_seed(self._case, "experts")))
        # of the generator only its integers are promised for ever: all else follows from these
        raw = rng.bit_generator.random_raw(shape[0] * (count + k))
        order = np.argsort(raw[: shape[0] * count].reshape(shape[0], count), axis=1)
        ids = order[:, :k]
        weights = (raw[shape[0] * count :].reshape(shape) >> np.uint64(40)).astype(np.float32)
        weights = np.float32(0.25) + weights * np.float32(2.0**-25)
        read = np.unique([0, count - 1, int(raw[0] % count)])[:EXPERTS_READ]
        for place, row in enumerate(self.rows.of_rows()):
            first = [int(read[(place + i) % read.size]) for i in range(min(2, k, read.size))]
            others = [int(e) for e in ids[row] if e not in first]
            ids[row] = (first + others)[:k]
            weights[row, len(first) :] = 0.0
            turn = place % k  # so that what counts stands in every column
            ids[row], weights[row] = np.roll(ids[row], turn), np.roll(weights[row], turn)
        is_real = (self._case.inputs["positions"] >= 0)[:, None]
        return (
            np.where(is_real, ids, -1).astype(np.int32),
            np.where(is_real, weights, np.float32(0)),
        )

    def whole_index(self, value: SSAValue, drawn: Logical) -> Array | None:
        """A kept operand of integers as the reference reads it: experts of weight 0 left out."""
        kind, used = value.type, roles(self.alone.candidate.region, value)
        if not isinstance(kind, TensorType) or not kind.dtype_name.startswith("i"):
            return None
        if ("moe.experts", "ids") in used:
            ids, weights = self._experts(kind.at(self._case.env))
            return np.where(weights != 0, ids, np.int32(-1))
        return array_of(drawn.values) if self._step_input(kind, used) else None

    def value(self, value: SSAValue, drawn: Logical, sample: RegionSample) -> Bound:
        """What the reference gets of an input: the sampled part, counting as the sampled step."""
        kind, used = value.type, roles(self.alone.candidate.region, value)
        axes = sample.drawn.get(value, ())
        if isinstance(drawn.values, DrawnCache):
            return cache_of(drawn.values, axes[0] if axes else None)
        step = self._step_input(kind, used) if isinstance(kind, TensorType) else None
        if step is not None:
            return sample.rows.case.inputs[step]
        if ("moe.experts", "ids") in used and value in sample.named:
            return taken(sample.named[value], axes)
        return drawn.at(axes)


def _num_experts(alone: Alone, case: StepCase) -> int:
    for op in alone.candidate.region.ops.values():
        if op.name == "moe.experts":
            kind = getattr(op, "gate").type  # noqa: B009  the op class is not known here
            assert isinstance(kind, TensorType)
            return kind.at(case.env)[0]
    raise AssertionError("expert ids without experts")


def _counts(shape: tuple[int, ...], seed: int) -> Kept:
    """Counts of the first ids in the first rows; all others are as the last of these."""
    held = tuple(min(most, n) for most, n in zip(COUNTED, shape, strict=True))
    rng = np.random.default_rng(seed)
    drawn = np.where(rng.random(held) < 0.5, 0, rng.integers(0, 12, held)).astype(np.int32)
    return Kept(shape=shape, dtype="i32", data=drawn.tobytes(), held=held)


def _range(shape: tuple[int, ...], used: set[Role]) -> tuple[float, float]:
    if used & NEAR_ONE:
        return 0.8, 1.2
    bound = UNIT
    if used & WEIGHTS:
        bound = UNIT / float(np.sqrt(shape[-1]))
    if used & LOGITS:
        bound = 3 * UNIT
    return -bound, bound


def _scaled(kind: TensorType, shape: tuple[int, ...], seed: int, edges: bool) -> Logical:
    """fp8 values of the whole format, with scales that bring activations to the size 1."""
    blocks = kind.block_scale
    assert blocks is not None
    rows, cols = blocks.rows.data, blocks.cols.data
    scale_shape = (*shape[:-2], -(-shape[-2] // rows), -(-shape[-1] // cols))
    largest = LARGEST[kind.dtype_name]
    unit = UNIT / largest
    dtype = kind.dtype_name
    return Logical(
        Drawn(shape=shape, dtype=dtype, seed=seed, low=-largest, high=largest, edges=edges),
        Drawn(
            shape=scale_shape, dtype=str(blocks.dtype), seed=seed + 1, low=unit / 2, high=unit * 1.5
        ),
        rows,
        cols,
    )


def _weight_parts(alone: Alone, case: StepCase) -> dict[str, Logical]:
    """Every logical weight that lies in a stored tensor of the region's weights."""
    candidate, storage = alone.candidate, alone.storage
    wanted = {p for w in candidate.weight_operands.values() for p in storage.holder[w].parts}
    near_one = {
        weight
        for operand, weight in candidate.weight_operands.items()
        if _roles_of(alone, operand) & NEAR_ONE
    }
    parts: dict[str, Logical] = {}
    for name in sorted(wanted):
        kind = storage.types[name]
        seed = _seed(case, name)
        if kind.scale is None or kind.scale_shape is None:
            width = kind.shape[-1] if len(kind.shape) > 1 else 300
            bound = UNIT / float(np.sqrt(width))
            low, high = (0.8, 1.2) if name in near_one else (-bound, bound)
            values = Drawn(shape=kind.shape, dtype=kind.dtype, seed=seed, low=low, high=high)
            parts[name] = Logical(values)
            continue
        largest = LARGEST[kind.dtype]
        scale = UNIT / largest / float(np.sqrt(kind.shape[-1]))
        rows, cols = kind.scale.block(kind.shape)
        values = Drawn(shape=kind.shape, dtype=kind.dtype, seed=seed, low=-largest, high=largest)
        scales = Drawn(
            shape=kind.scale_shape, dtype=kind.scale.dtype, seed=seed + 1,
            low=scale / 2, high=scale * 1.5,
        )  # fmt: skip
        parts[name] = Logical(values, scales, rows, cols)
    return parts


def _roles_of(alone: Alone, operand: str) -> set[Role]:
    bound = alone.candidate.region.values[operand]
    assert isinstance(bound, SSAValue)
    return roles(alone.candidate.region, bound)


def _weights(
    alone: Alone, parts: Mapping[str, Logical], used: frozenset[str]
) -> tuple[GivenWeight, ...]:
    """The stored tensors that the launches read; one rank's share is drawn as it is."""
    return tuple(
        GivenWeight(
            stored=stored,
            parts=tuple(_part(parts[each.name]) for each in stored.parts),
        )
        for stored in alone.storage.held_weights(used)
        if all(part.name in parts for part in stored.parts)
    )


def _part(part: Logical) -> GivenPart:
    assert isinstance(part.values, Drawn)  # as `_weight_parts` makes them
    assert part.scales is None or isinstance(part.scales, Drawn)
    return GivenPart(values=part.values, scales=part.scales)
