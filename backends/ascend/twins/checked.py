"""Refuses calls of operators' twins that break the operators' rules. Knows no operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from itertools import pairwise
from math import prod
from typing import Any, cast

import torch

from lostwax.backends.ascend.contract.rule import Call, Described, Lengths, Rule, Value, refusal
from lostwax.backends.runtime.tensors import TORCH_DTYPES

_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_SCALAR_TYPES = {15: torch.bfloat16, 5: torch.float16, 3: torch.int32, 1: torch.int8}
"""torch's number of a dtype, which operators whose argument is an int get for it."""


class RuleBroken(ValueError):
    """An operator was called as its documentation forbids."""


Twin = Callable[..., Any]  # an operator's own results: a tensor, or several


def dtype_of(number: int | None) -> torch.dtype:
    """The dtype that an operator was told by its number."""
    return torch.int8 if number is None else _SCALAR_TYPES[number]


def checked(
    rule: Rule, twin: Twin, derive: Callable[[Mapping[str, Any]], Mapping[str, int]] | None = None
) -> Twin:
    """The twin, whose arguments have the schema's names, behind its operator's rule.

    `derive` gives the numbers that the rule names and no axis has. Raises RuleBroken.
    """
    parameters = signature(twin)

    @wraps(twin)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {name: _only(value) for name, value in bound.arguments.items()}
        tensors = {n: v for n, v in given.items() if isinstance(v, torch.Tensor)}
        described = {name: _described(tensor) for name, tensor in tensors.items()}
        derived = dict(derive(given)) if derive else {}
        broken = refusal(rule, Call(described, _values(given), derived))
        broken = broken or _lengths(rule, tensors)
        if broken:
            raise RuleBroken(broken)
        return twin(*args, **kwargs)

    return call


def numbers(tensor: torch.Tensor) -> list[int]:
    """The integers of a tensor of one axis."""
    return cast("list[int]", tensor.tolist())  # untyped in torch


def _only(value: Any) -> Any:
    """Of a list of tensors the one that is in it: no call here gives several."""
    if isinstance(value, list):
        several = cast("list[Any]", value)
        if several and isinstance(several[0], torch.Tensor):
            (only,) = several
            return only
    return cast("Any", value)


def _described(tensor: torch.Tensor) -> Described:
    return Described(_NAMES[tensor.dtype], tuple(tensor.shape), tensor.is_contiguous())


def _values(given: Mapping[str, Any]) -> dict[str, Value]:
    found = {n: v for n, v in given.items() if isinstance(v, int | float | str | bool)}
    if "output_dtype" in found:
        found["output_dtype"] = _NAMES[dtype_of(int(found["output_dtype"]))]
    return found


def _lengths(rule: Rule, tensors: Mapping[str, torch.Tensor]) -> str | None:
    for name, (kind, whole) in rule.lengths.items():
        if name in tensors:
            wrong = _wrong(kind, numbers(tensors[name]), _extent(rule, whole, tensors))
            if wrong:
                return f"{rule.op}: {name} {wrong}"
    return None


def _extent(rule: Rule, product: str, tensors: Mapping[str, torch.Tensor]) -> int:
    """The size of an axis, or of several by name with * between."""
    sizes = {
        axis: size
        for name, tensor in tensors.items()
        for axis, size in zip(rule.arguments[name].shape, tensor.shape, strict=True)
    }
    return prod(sizes[axis] for axis in product.split(" * "))


def _wrong(kind: Lengths, lengths: list[int], whole: int) -> str | None:
    if kind == "places":
        places = [place for place in lengths if place != -1]
        if len(places) != len(set(places)):
            return f"{lengths} holds a place twice"
        if places and not 0 <= min(places) <= max(places) < whole:
            return f"{lengths} holds a place outside of {whole}"
        return None
    if min(lengths, default=0) < 0:
        return f"{lengths} holds a negative length"
    if kind == "cumulative":
        falls = any(b < a for a, b in pairwise(lengths))
        if falls or lengths[-1] != whole:
            return f"{lengths} is not cumulative up to {whole} rows"
    elif kind == "each" and max(lengths, default=0) > whole:
        return f"{lengths} holds a length beyond {whole}"
    elif kind == "shares" and sum(lengths) != whole:
        return f"{lengths} does not sum to {whole} rows"
    return None
