"""Whether a launch keeps its kernel's rule: asked when it is made, and before it is bound.

Reads no memory: views say how much there is. A model has thousands of launches and is checked at
every start, so that a message is only put together where there is something to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from lostwax.backends.cpu.contract.rule import (
    LONG,
    MOST,
    Appended,
    ByteCache,
    Cache,
    Memory,
    Nothing,
    Numbers,
    Parameter,
    Real,
    RealRows,
    Rule,
    Slots,
    Whole,
)
from lostwax.backends.cpu.contract.rules import RULES
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.parameter import Null, Pointer, Scalar
from lostwax.ir.contract.parameter import Parameter as Given
from lostwax.ir.contract.program import KernelLaunch
from lostwax.ir.contract.view import View


class Unfit(ValueError):
    """A launch breaks its kernel's rule; the message names kernel, parameter and number."""


def check_native(launch: KernelLaunch) -> None:
    """Raise Unfit for an unknown symbol, other parameters than its rule's, or integers by which
    the kernel would touch more than there is."""
    rule = _rule_of(launch)
    own = [each for each in rule.parameters if not isinstance(each, Appended)]
    if len(own) != len(launch.params):
        _refuse(rule, f"takes {len(own)} parameters, is given {len(launch.params)}")
    numbers = numbers_of(rule, launch)
    for demand in rule.demands:
        if not demand.holds(numbers):
            _refuse(rule, f"wants {demand.text}, is given {numbers}")
    if (chunks := rule.chunks(numbers)) > MOST:
        _refuse(rule, f"{chunks} chunks, {MOST} at most, by {numbers}")
    views = _views(rule, launch)
    for parameter in own:
        if (view := views.get(parameter.name)) is not None:
            _check_memory(rule, parameter, view, numbers)
    if RealRows.name in views:
        _check_rows(rule, views)
    if (scratch := rule.scratch_bytes(numbers)) > launch.shared_bytes:
        _refuse(
            rule,
            f"a thread takes {scratch} bytes of scratch, of which it has {launch.shared_bytes}, by"
            f" {numbers}",
        )


def appended(launch: KernelLaunch, num_pages: Callable[[View], int]) -> tuple[Scalar, ...]:
    """What the driver gives the kernel behind the parameters of a launch that keeps its rule.

    `num_pages` says how many pages a cache has. Raises Unfit where it has none.
    """
    rule, found = _rule_of(launch), list[Scalar]()
    for each in rule.parameters:
        if isinstance(each, Appended):
            view = _views(rule, launch)[each.cache]
            count = num_pages(view)
            if count < 1:
                _refuse(rule, f"{each.cache} has no pages")
            rows = count * view.shape[1] if isinstance(each, Slots) else count
            found.append(Scalar("i32", min(rows, MOST)))
    return tuple(found)


def numbers_of(rule: Rule, launch: KernelLaunch) -> Numbers:
    """The integers that the artifact gives, by name. Raises Unfit for parameters of other kinds."""
    given = zip(rule.parameters, launch.params, strict=False)  # the appended ones lie behind
    return Numbers({parameter.name: _number(rule, parameter, each) for parameter, each in given})


def _rule_of(launch: KernelLaunch) -> Rule:
    rule = RULES.get(launch.symbol)
    if rule is None:
        raise Unfit(f"there is no native kernel {launch.symbol!r}")
    return rule


def _refuse(rule: Rule, why: str) -> NoReturn:
    raise Unfit(f"native kernel {rule.symbol}: {why}")


def _views(rule: Rule, launch: KernelLaunch) -> dict[str, View]:
    given = zip(rule.parameters, launch.params, strict=False)
    return {each.name: p.view for each, p in given if isinstance(p, Pointer)}


def _number(rule: Rule, parameter: Parameter, given: Given) -> int:
    """The parameter's value where it is an integer, else whether it is a pointer."""
    name = parameter.name
    if isinstance(parameter, Whole):
        if not isinstance(given, Scalar) or given.kind != "i32" or type(given.value) is not int:
            _refuse(rule, f"{name} is no i32")
        if not parameter.least <= given.value <= parameter.most:
            _refuse(
                rule, f"{name} is {given.value}, not from {parameter.least} to {parameter.most}"
            )
        return given.value
    if isinstance(parameter, Real):
        if not isinstance(given, Scalar) or given.kind != "f32":
            _refuse(rule, f"{name} is no f32")
        return False
    if isinstance(given, Null):
        if not isinstance(parameter, Nothing) and not getattr(parameter, "may_be_null", False):
            _refuse(rule, f"{name} is null")
        return False
    if isinstance(parameter, Nothing):
        _refuse(rule, f"{name} is not null")
    if not isinstance(given, Pointer):
        _refuse(rule, f"{name} is no pointer")
    return True


def _check_memory(rule: Rule, parameter: Parameter, view: View, numbers: Numbers) -> None:
    if isinstance(parameter, Memory):
        _require_dtype(rule, parameter.name, view, parameter.dtype)
        wanted = parameter.reach(numbers) * DTYPE_BYTES[view.dtype]
        if wanted > (held := view.span_bytes):
            _refuse(
                rule, f"touches {wanted} bytes of {parameter.name}, which has {held}, by {numbers}"
            )
    elif isinstance(parameter, Cache):
        _require_dtype(rule, parameter.name, view, parameter.dtype)
        _check_cache(rule, parameter, view, numbers)
    elif isinstance(parameter, ByteCache):
        _require_dtype(rule, parameter.name, view, "u8")
        _check_byte_cache(rule, parameter, view, numbers)


def _check_cache(rule: Rule, cache: Cache, view: View, numbers: Numbers) -> None:
    _, tokens, width = view.shape if len(view.shape) == 3 else (0, 0, 0)
    wanted = tokens if cache.page_tokens is None else cache.page_tokens(numbers)
    is_dense = view.strides == (tokens * width, width, 1)
    if not tokens == wanted > 0 or width != cache.width(numbers) or not is_dense:
        _refuse(
            rule,
            f"{cache.name} {list(view.shape)} by {list(view.strides)} is not pages of {wanted}"
            f" dense rows, by {numbers}",
        )


def _check_byte_cache(rule: Rule, cache: ByteCache, view: View, numbers: Numbers) -> None:
    tokens, row = cache.page_tokens(numbers), cache.row_bytes(numbers)
    rows = (tokens, row), (tokens * row, row, 1)
    pages = (tokens * row,), (tokens * row, 1)
    if tokens < 1 or (view.shape[1:], view.strides) not in (rows, pages):
        _refuse(
            rule,
            f"{cache.name} {list(view.shape)} by {list(view.strides)} is not dense pages of"
            f" {tokens} rows of {row} bytes, by {numbers}",
        )


def _check_rows(rule: Rule, views: Mapping[str, View]) -> None:
    """All threads read one number of real rows: it is a step's input, where nothing is written."""
    counts = views[RealRows.name]
    _require_dtype(rule, RealRows.name, counts, "i32")
    if counts.space != "input" or not counts.span_bytes:
        _refuse(rule, f"num_rows is {counts.span_bytes} bytes of {counts.space} memory")
    for name, view in views.items():
        beside = name == RealRows.name or (view.space, view.name) != (counts.space, counts.name)
        if not beside:
            _refuse(rule, f"{name} lies where num_rows does")


def _require_dtype(rule: Rule, name: str, view: View, dtype: str) -> None:
    wanted = LONG.get(dtype, dtype)
    if view.dtype != wanted:
        _refuse(rule, f"{name} is of {view.dtype}, not {wanted}")
