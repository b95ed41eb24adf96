"""Whether a launch keeps its kernel's rule: asked when it is made, and before it is bound.

Reads no memory: views say how much there is, of a cache with as many pages as there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def _require(holds: bool, rule: Rule, message: str) -> None:
    if not holds:
        raise Unfit(f"native kernel {rule.symbol}: {message}")


def check_native(launch: KernelLaunch, num_pages: Callable[[View], int]) -> tuple[Scalar, ...]:
    """What the driver gives the kernel behind the launch's own parameters.

    `num_pages` says how many pages a cache has. Raises Unfit for an unknown symbol, other
    parameters than the rule's, or integers by which the kernel would touch more than there is.
    """
    rule = RULES.get(launch.symbol)
    if rule is None:
        raise Unfit(f"there is no native kernel {launch.symbol!r}")
    own = [each for each in rule.parameters if not isinstance(each, Appended)]
    count = len(launch.params)
    _require(len(own) == count, rule, f"takes {len(own)} parameters, is given {count}")
    given = list(zip(own, launch.params, strict=True))
    views = {p.name: held.view for p, held in given if isinstance(held, Pointer)}
    numbers = Numbers({p.name: _number(rule, p, held) for p, held in given})
    for demand in rule.demands:
        _require(demand.holds(numbers), rule, f"wants {demand.text}, is given {numbers}")
    chunks = rule.chunks(numbers)
    _require(chunks <= MOST, rule, f"{chunks} chunks, {MOST} at most, of {numbers}")
    for parameter in own:
        if (view := views.get(parameter.name)) is not None:
            _check_memory(rule, parameter, view, numbers)
    _check_rows(rule, own, views)
    scratch = rule.scratch_bytes(numbers)
    _require(
        scratch <= launch.shared_bytes,
        rule,
        f"a thread takes {scratch} bytes of scratch, of which it has {launch.shared_bytes}, by"
        f" {numbers}",
    )
    added = (each for each in rule.parameters if isinstance(each, Appended))
    return tuple(_appended(rule, each, views[each.cache], num_pages) for each in added)


def _number(rule: Rule, parameter: Parameter, given: Given) -> int:
    """The parameter's value where it is an integer, else whether it is a pointer."""
    name = parameter.name
    match parameter:
        case Whole(least=least, most=most):
            if not isinstance(given, Scalar) or given.kind != "i32" or type(given.value) is not int:
                raise Unfit(f"native kernel {rule.symbol}: {name} is no i32")
            _require(
                least <= given.value <= most,
                rule,
                f"{name} is {given.value}, not from {least} to {most}",
            )
            return given.value
        case Real():
            _require(isinstance(given, Scalar) and given.kind == "f32", rule, f"{name} is no f32")
            return 0
        case Nothing():
            _require(isinstance(given, Null), rule, f"{name} is not null")
            return 0
        case Memory(may_be_null=True) if isinstance(given, Null):
            return 0
        case _:
            _require(isinstance(given, Pointer), rule, f"{name} is no pointer")
            return 1


def _check_memory(rule: Rule, parameter: Parameter, view: View, numbers: Numbers) -> None:
    name = parameter.name
    match parameter:
        case Memory(dtype=dtype, reach=reach):
            _require_dtype(rule, name, view, dtype)
            wanted = reach(numbers) * DTYPE_BYTES[view.dtype]
            _require(
                wanted <= view.span_bytes,
                rule,
                f"touches {wanted} bytes of {name}, which has {view.span_bytes}, by {numbers}",
            )
        case Cache(dtype=dtype):
            _require_dtype(rule, name, view, dtype)
            _check_cache(rule, parameter, view, numbers)
        case ByteCache():
            _require_dtype(rule, name, view, "u8")
            _check_byte_cache(rule, parameter, view, numbers)
        case _:
            pass


def _check_cache(rule: Rule, cache: Cache, view: View, numbers: Numbers) -> None:
    _, tokens, width = view.shape if len(view.shape) == 3 else (0, 0, 0)
    wanted = tokens if cache.page_tokens is None else cache.page_tokens(numbers)
    _require(
        tokens == wanted > 0
        and width == cache.width(numbers)
        and view.strides == (tokens * width, width, 1),
        rule,
        f"{cache.name} {list(view.shape)} by {list(view.strides)} is not pages of {wanted} dense"
        f" rows, as {numbers} say",
    )


def _check_byte_cache(rule: Rule, cache: ByteCache, view: View, numbers: Numbers) -> None:
    tokens, row = cache.page_tokens(numbers), cache.row_bytes(numbers)
    rows = (tokens, row), (tokens * row, row, 1)
    pages = (tokens * row,), (tokens * row, 1)
    _require(
        tokens > 0 and row > 0 and (view.shape[1:], view.strides) in (rows, pages),
        rule,
        f"{cache.name} {list(view.shape)} by {list(view.strides)} is not dense pages of {tokens}"
        f" rows of {row} bytes, as {numbers} say",
    )


def _check_rows(rule: Rule, own: Sequence[Parameter], views: dict[str, View]) -> None:
    """All threads read one number of real rows: it is a step's input, where nothing is written."""
    if not any(isinstance(each, RealRows) for each in own):
        return
    counts = views[RealRows.name]
    _require_dtype(rule, RealRows.name, counts, "i32")
    _require(counts.space == "input", rule, f"num_rows is {counts.space} memory, no step's input")
    _require(counts.span_bytes > 0, rule, "num_rows is empty")
    for name, view in views.items():
        beside = name == RealRows.name or (view.space, view.name) != (counts.space, counts.name)
        _require(beside, rule, f"{name} lies where num_rows does")


def _require_dtype(rule: Rule, name: str, view: View, dtype: str) -> None:
    wanted = LONG.get(dtype, dtype)
    _require(view.dtype == wanted, rule, f"{name} is of {view.dtype}, not {wanted}")


def _appended(rule: Rule, added: Appended, view: View, num_pages: Callable[[View], int]) -> Scalar:
    pages = num_pages(view)
    count = pages * view.shape[1] if isinstance(added, Slots) else pages
    _require(pages > 0, rule, f"{added.cache} has no pages")
    return Scalar("i32", min(count, MOST))
