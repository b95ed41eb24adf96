"""A weight plan that cannot be carried out is refused before memory is taken, by its weight."""

from __future__ import annotations

import re

import pytest
from msgspec import json, structs

from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.check_weights import check_weights
from lostwax.ir.contract.scale_layout import (
    FP8_BLOCKS,
    MX,
    NVFP4,
    BlockScale,
    ScaleLayout,
    scale_shape,
)
from lostwax.ir.contract.weights import (
    Cast,
    Concat,
    Dequantise,
    Pad,
    Reencode,
    Requantise,
    Select,
    Source,
    Split,
    Stack,
    Step,
    StoredTensor,
    StoredWeight,
    Tile,
    Transpose,
    WeightPart,
    WeightPlan,
)

SHAPE = (256, 128)
PART = WeightPart(name="w.weight", dtype="f8E4M3FN", shape=SHAPE, scale=FP8_BLOCKS)
PLAIN = WeightPart(name="w.weight", dtype="bf16", shape=SHAPE)
SCALES = StoredTensor("a.safetensors", "w.scale", "f32", scale_shape(FP8_BLOCKS, SHAPE))
SOURCE = Source("a.safetensors", "w.weight", "f8E4M3FN", SHAPE, SCALES)
KEPT = StoredWeight(
    name="w.weight", dtype="f8E4M3FN", shape=SHAPE, parts=(PART,), steps=(Select("values"),)
)


def _plan(stored: StoredWeight, *sources: Source) -> WeightPlan:
    return WeightPlan(stored={"g": (stored,)}, groups={"l.": "g"}, sources={"l.w.weight": sources})


def test_a_plan_that_fits_is_taken() -> None:
    check_weights(_plan(KEPT, SOURCE), 256 * 128, 1)
    check_weights(WeightPlan(stored={"g": (KEPT,)}, groups={"l.": "g"}, sources={}), 256 * 128, 1)


def _with(*steps: Step, part: WeightPart = PART, dtype: str = "bf16") -> StoredWeight:
    return structs.replace(KEPT, parts=(part,), steps=steps, dtype=dtype)


BROKEN: dict[str, tuple[StoredWeight, str]] = {
    "another dtype": (structs.replace(KEPT, dtype="bf16"), "its steps make f8E4M3FN"),
    "another shape": (
        structs.replace(KEPT, shape=(128, 256)),
        "planned are f8E4M3FN .128, 256.",
    ),
    "an unknown dtype": (structs.replace(KEPT, dtype="int3"), "unknown dtype 'int3'"),
    "an unknown part": (_with(part=structs.replace(PLAIN, dtype="q4")), "unknown dtype 'q4'"),
    "packed": (
        _with(part=structs.replace(PLAIN, dtype="f4E2M1FN")),
        "several lie in a byte, and nothing lowers that; dequantise the checkpoint",
    ),
    "both left": (_with(dtype="f8E4M3FN"), "values and scales are left together: select one"),
    "a cast of scaled values": (_with(Cast("bf16")), "'cast' takes plain numbers.*: select one"),
    "a cast to fp8": (_with(Cast("f8E4M3FN"), part=PLAIN), "'cast' makes no 'f8E4M3FN'"),
    "a cast to nothing": (_with(Cast("int3"), part=PLAIN), "'cast' makes no 'int3'"),
    "no scales to multiply": (_with(Dequantise("bf16"), part=PLAIN), "takes scaled numbers"),
    "no scales to select": (_with(Select("scales"), part=PLAIN), "takes scaled numbers"),
    "reencoded twice": (_with(Reencode(), Reencode()), "'reencode' takes f8E4M3FN"),
    "requantised to bf16": (
        _with(Requantise("bf16", FP8_BLOCKS), part=PLAIN),
        "bf16 has no scales",
    ),
    "two levels": (
        _with(Requantise("f8E4M3FN", NVFP4), part=PLAIN),
        "nothing reads scales of two levels; dequantise the checkpoint",
    ),
    "scales of bf16": (
        _with(part=structs.replace(PART, scale=structs.replace(MX, dtype="bf16"))),
        "scales are f32 or f8E8M0FNU, not 'bf16'",
    ),
    "no permutation": (_with(Transpose((0, 0)), part=PLAIN), "permutes no 2 axes"),
    "an axis too many": (_with(Transpose((0, 1, 2)), part=PLAIN), "permutes no 2 axes"),
    "padding of one axis": (_with(Pad((2,)), part=PLAIN), "a number for each axis is wanted"),
    "tiles that cut": (_with(Tile((96, 16)), part=PLAIN), r"tiles of \[96, 16\] cut .*: pad it"),
    "a split of nothing": (_with(Split(-3), part=PLAIN), "along axis -3 of 2"),
    "stacked twice": (_with(Stack(), Stack(), part=PLAIN), "stacked twice"),
    "left unstacked": (_with(part=structs.replace(PLAIN, count=2)), "2 tensors of .* unstacked"),
    "across the stack": (_with(Stack(), Pad((2, 1, 1)), part=PLAIN), "across the stacked axis 0"),
    "joined, but one": (_with(Concat(0), Transpose((1, 0)), part=PLAIN), "concat is not its last"),
    "joined along no axis": (_with(Concat(2), part=PLAIN), "joined along axis 2 of 2"),
    "parts left apart": (structs.replace(KEPT, parts=(PART, PART)), "2 parts are left apart"),
    "parts that do not fit": (
        structs.replace(
            KEPT,
            parts=(PLAIN, structs.replace(PLAIN, shape=(4, 4))),
            steps=(Concat(0),),
            dtype="bf16",
        ),
        r"bf16 \[4, 4\] of 'w.weight' cannot lie behind bf16 \[256, 128\]",
    ),
    "no part": (structs.replace(KEPT, parts=()), "it has no part"),
    "beyond memory": (
        _with(Pad((1 << 16, 1 << 16)), part=structs.replace(PLAIN, shape=(1 << 35, 1 << 30))),
        "makes [0-9]+ bytes of it",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_steps_that_do_not_fit_are_refused_by_the_weight(name: str) -> None:
    stored, message = BROKEN[name]
    with pytest.raises(Inconsistent) as error:
        check_weights(_plan(stored, SOURCE), 256 * 128, 1)
    assert re.search(message, str(error.value)), str(error.value)
    assert "'w.weight'" in str(error.value)
    assert str(error.value).isprintable()


def _scaled(scale: ScaleLayout, shape: tuple[int, ...]) -> StoredWeight:
    part = structs.replace(PART, shape=shape, scale=scale)
    return _with(Split(-2), Dequantise("bf16"), part=part)


@pytest.mark.parametrize(
    ("shape", "ranks", "message"),
    [
        ((255, 128), 2, "255 do not divide over 2 ranks"),
        ((384, 128), 2, "192 cut scale blocks of 128: dequantise first"),
        ((0, 128), 2, "0 do not divide over 2 ranks"),
    ],
)
def test_shares_that_cut_are_refused(shape: tuple[int, int], ranks: int, message: str) -> None:
    with pytest.raises(Inconsistent, match=message):
        check_weights(_plan(_scaled(FP8_BLOCKS, shape), SOURCE), 1, ranks)
    fine = BlockScale(rows=64, cols=128, dtype="f32")
    made = structs.replace(_scaled(fine, (384, 128)), shape=(192, 128))
    check_weights(structs.replace(_plan(made), sources={}), 2 * 192 * 128, 2)


def _scales(shape: tuple[int, ...], dtype: str) -> Source:
    return structs.replace(SOURCE, scale=structs.replace(SCALES, shape=shape, dtype=dtype))


OTHERS: list[tuple[Source | None, str]] = [
    (structs.replace(SOURCE, dtype="bf16"), "'w.weight' of 'l.w.weight' is bf16"),
    (structs.replace(SOURCE, shape=(128, 256)), r"is f8E4M3FN \[128, 256\], its steps"),
    (structs.replace(SOURCE, scale=None), "has no scales, unlike what its steps take"),
    (
        _scales((2, 2), "f32"),
        r"scales 'w.scale' of 'l.w.weight' are f32 \[2, 2\], its steps take f32 \[2, 1\]",
    ),
    (_scales((2, 1), "f8E8M0FNU"), "are f8E8M0FNU .* its steps take f32"),
    (None, "'l.w.weight' has no source"),
]


@pytest.mark.parametrize(("found", "message"), OTHERS)
def test_sources_that_are_not_what_steps_take_are_named(found: Source | None, message: str) -> None:
    with pytest.raises(Inconsistent, match=message):
        check_weights(_plan(KEPT, *([] if found is None else [found])), 256 * 128, 1)


def test_one_source_too_many_is_counted() -> None:
    with pytest.raises(Inconsistent, match="has 2 sources, wants 1"):
        check_weights(_plan(KEPT, SOURCE, SOURCE), 256 * 128, 1)


def test_scales_of_plain_tensors_are_refused() -> None:
    stored = structs.replace(KEPT, parts=(PLAIN,), steps=(), dtype="bf16")
    with pytest.raises(Inconsistent, match="has scales, unlike what its steps take"):
        check_weights(_plan(stored, structs.replace(SOURCE, dtype="bf16")), 2 * 256 * 128, 1)


def test_every_kind_of_step_is_read_back_as_it_is() -> None:
    steps: tuple[Step, ...] = (
        Select("values"), Split(-1), Cast("bf16"), Dequantise("f32"), Requantise("f8E4M3FN", MX),
        Reencode(), Stack(), Transpose((1, 0)), Pad((2, 2)), Tile((2, 2)), Concat(0),
    )  # fmt: skip
    stored = structs.replace(KEPT, steps=steps)
    assert json.decode(json.encode(stored), type=StoredWeight) == stored
