"""Conditions of lowerings that explain themselves. A refusal is a sentence, never a bare False."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lostwax.ir.contract.cache_layout import in_encoding
from lostwax.ir.contract.captured import must_be_captured
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, FP8_ROW_BLOCKS, ScaleLayout

if TYPE_CHECKING:
    from lostwax.backends.lowering import Match


@dataclass(frozen=True, slots=True)
class Predicate:
    """`refusal(match)` is None where the lowering may be used, else the reason against it."""

    refusal: Callable[[Match], str | None]

    def __and__(self, other: Predicate) -> Predicate:
        return Predicate(lambda m: self.refusal(m) or other.refusal(m))


ALWAYS = Predicate(lambda match: None)


def dtype(value: str, *allowed: str) -> Predicate:
    """The value's element type is one of `allowed`."""

    def refusal(match: Match) -> str | None:
        got = match.dtype(value)
        return (
            None if got in allowed else f"dtype of {value} is {got}, wants {' or '.join(allowed)}"
        )

    return Predicate(refusal)


def encoded_for_target(value: str) -> Predicate:
    """The value, if it is fp8, has the encoding that the target converts and multiplies."""

    def refusal(match: Match) -> str | None:
        got, wants = match.dtype(value), match.target.fp8_encoding
        if not got.startswith("f8") or got == wants:
            return None
        return f"dtype of {value} is {got}, target fact fp8_encoding is {wants!r}"

    return Predicate(refusal)


def rank(value: str, wanted: int) -> Predicate:
    """The value has `wanted` axes."""

    def refusal(match: Match) -> str | None:
        got = len(match.shape(value))
        return None if got == wanted else f"{value} has {got} axes, wants {wanted}"

    return Predicate(refusal)


def of_rows(value: str) -> Predicate:
    """The value's first axis is the step's rows, so that a kernel may leave behind `num_rows`."""

    def refusal(match: Match) -> str | None:
        if match.is_rows(value):
            return None
        return f"axis 0 of {value} is not the step's rows, which num_rows counts"

    return Predicate(refusal)


def plain(value: str) -> Predicate:
    """The value carries no block scales."""
    return Predicate(lambda m: f"{value} is block-scaled" if m.is_scaled(value) else None)


def weight_blocks(*values: str) -> Predicate:
    """Each value's scales, if it has any, are f32 and one for a square block of DeepSeek's fp8."""
    return _all_scaled_as(values, FP8_BLOCKS)


def row_blocks(*values: str) -> Predicate:
    """Each value's scales, if it has any, are f32 and one for a row's columns of such a block."""
    return _all_scaled_as(values, FP8_ROW_BLOCKS)


def _all_scaled_as(values: tuple[str, ...], wanted: ScaleLayout) -> Predicate:
    def refusal(match: Match) -> str | None:
        for value in values:
            got = match.scale(value)
            if got not in (None, wanted):
                return f"{value} is {got}, wants values {wanted}"
        return None

    return Predicate(refusal)


def layout(value: str, *allowed: str) -> Predicate:
    """The cache's byte layout is one of `allowed`."""

    def refusal(match: Match) -> str | None:
        got = match.layout(value)
        return (
            None if got in allowed else f"layout of {value} is {got}, wants {' or '.join(allowed)}"
        )

    return Predicate(refusal)


def encoded_layout(value: str, *allowed: str) -> Predicate:
    """The cache's byte layout is one of `allowed`, its fp8 in the target's encoding."""

    def refusal(match: Match) -> str | None:
        wanted = (in_encoding(name, match.target.fp8_encoding) for name in allowed)
        return layout(value, *wanted).refusal(match)

    return Predicate(refusal)


def fact(name: str, *allowed: object) -> Predicate:
    """The target's fact `name` is, or contains, one of `allowed`."""

    def refusal(match: Match) -> str | None:
        got = getattr(match.target, name)
        has = any(a in got for a in allowed) if isinstance(got, tuple) else got in allowed
        return None if has else f"target fact {name} is {got!r}, wants {allowed}"

    return Predicate(refusal)


def fact_at_least(name: str, bound: int) -> Predicate:
    """The target's fact `name` is a number that reaches `bound`."""

    def refusal(match: Match) -> str | None:
        got = getattr(match.target, name)
        return None if got >= bound else f"target fact {name} is {got}, wants >= {bound}"

    return Predicate(refusal)


def axis_at_most(value: str, axis: int, bound: int) -> Predicate:
    """Axis `axis` of the value has at most `bound` elements in this bucket."""

    def refusal(match: Match) -> str | None:
        got = match.shape(value)[axis]
        return None if got <= bound else f"axis {axis} of {value} is {got}, wants <= {bound}"

    return Predicate(refusal)


def axis_at_least(value: str, axis: int, bound: int) -> Predicate:
    """Axis `axis` of the value has at least `bound` elements in this bucket."""

    def refusal(match: Match) -> str | None:
        got = match.shape(value)[axis]
        return None if got >= bound else f"axis {axis} of {value} is {got}, wants >= {bound}"

    return Predicate(refusal)


def axis_multiple(value: str, axis: int, factor: int) -> Predicate:
    """Axis `axis` of the value is a multiple of `factor`."""

    def refusal(match: Match) -> str | None:
        got = match.shape(value)[axis]
        fits = got % factor == 0
        return None if fits else f"axis {axis} of {value} is {got}, wants a multiple of {factor}"

    return Predicate(refusal)


def not_captured() -> Predicate:
    """The segment is walked on the host, so reading values there is allowed."""

    def refusal(match: Match) -> str | None:
        if must_be_captured(match.segment, match.target):
            return (
                f"segment {match.segment} is captured as a device graph, and this reads on the host"
            )
        return None

    return Predicate(refusal)


def host_memory() -> Predicate:
    """The host reads device buffers directly (CPU targets)."""
    return Predicate(
        lambda m: None if m.target.host_memory else "needs device buffers in host memory"
    )
