"""Which steps `dense_mha.py` checks and times, and by which forms. Plain data."""

from __future__ import annotations

from collections.abc import Iterator

from mha_cases import Step

FORMS: tuple[dict[str, int], ...] = (
    {"keys": 128, "take_turns": 0},
    {"keys": 128, "take_turns": 1},
    {"keys": 96, "take_turns": 0},
    {"keys": 64, "take_turns": 0},
)
RAGGED = ((0, 1), (70, 130), (0, 0), (257, 3), (0, 64), (1000, 300), (3, 128), (0, 257))
MASKED_FORMS: tuple[dict[str, int], ...] = ({"take_turns": 0}, {"take_turns": 1})
TOP = 2048


def checked_steps() -> Iterator[Step]:
    """Every form on ragged steps, few heads and odd ones; the layouts; some heads at a time."""
    for knobs in FORMS:
        yield Step("bf16", 5, 1024, RAGGED, reqs=9, knobs=knobs)
    for layout in ("fp8_656", "fp8_576"):
        yield Step(layout, 16, 1024, RAGGED, knobs=FORMS[0])
    yield Step("fp8_656", 128, 2048, ((0, 2000),), knobs=FORMS[0] | {"heads_at_once": 32})
    for knobs in FORMS[:2]:
        yield Step("fp8_656", 128, 2048, ((1024, 1024),), knobs=knobs)


def timed_steps() -> Iterator[Step]:
    """Prompts and chunks, by each form; with 128 heads some heads at a time, too."""
    for heads in (128, 16):
        for rows, requests in (
            (2048, ((0, 2048),)),
            (2048, ((0, 512),) * 4),
            (1024, ((0, 1024),)),
            (1024, ((1024, 1024),)),
            (2048, ((0, 256),) * 8),
        ):
            for knobs in FORMS:
                yield Step("fp8_656", heads, rows, requests, knobs=knobs)
            if heads == 128:
                yield Step("fp8_656", heads, rows, requests, knobs=FORMS[0] | {"heads_at_once": 32})


def checked_masked_steps() -> Iterator[Step]:
    """Contexts shorter and longer than a selection, the layouts, some heads at a time."""
    for knobs in MASKED_FORMS:
        yield Step("bf16", 5, 1024, RAGGED, reqs=9, pages=32, top=300, knobs=knobs)
    for layout in ("fp8_656", "fp8_576"):
        yield Step(layout, 16, 1024, RAGGED, pages=32, top=128)
    mixed = ((3000, 700), (0, 300), (5000, 24))
    yield Step("bf16", 16, 2048, mixed, pages=128, top=TOP, knobs={"heads_at_once": 16})
    for knobs in MASKED_FORMS:
        yield Step("bf16", 128, 2048, ((2048, 2048),), pages=64, top=TOP, knobs=knobs)


def timed_masked_steps() -> Iterator[Step]:
    """Chunks of one prompt behind more and more of it, and of two; then some heads at a time."""
    for layout, heads in (("bf16", 128), ("bf16", 16), ("fp8_656", 128)):
        for new, prefix in (
            (2048, 2048), (1024, 3072), (2048, 4096), (2048, 6144), (1024, 5120), (512, 3584),
            (2048, 10240),
        ):  # fmt: skip
            yield Step(
                layout, heads, new, ((prefix, new),), reqs=16, pages=(prefix + new) // 64, top=TOP
            )
    yield Step("bf16", 128, 2048, ((3072, 1024),) * 2, reqs=16, pages=64, top=TOP)
    for new, prefix in ((2048, 2048), (2048, 6144)):
        for knobs in ({"take_turns": 1}, {"heads_at_once": 32}, {"heads_at_once": 16}):
            yield Step(
                "bf16", 128, new, ((prefix, new),), reqs=16, pages=(prefix + new) // 64, top=TOP,
                knobs=knobs,
            )  # fmt: skip
