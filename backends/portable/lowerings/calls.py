"""Short ways to write lowerings that are one call of a torch kernel. Knows no op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

from lostwax.backends.lowering import Knobs, Match, Work
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Const, HostCall, Launch, View

KERNELS = "lostwax.backends.portable.kernels."

Emit = Callable[[Match, Knobs], tuple[Launch, ...]]


def launch(
    op: str,
    function: str,
    args: tuple[View | None, ...],
    consts: Mapping[str, Const] | None = None,
    *,
    capturable: bool = True,
) -> tuple[Launch, ...]:
    """One host call. `function` is `module:name`, below portable's kernels unless it is dotted."""
    full = function if function.split(":")[0].count(".") else KERNELS + function
    call = HostCall(
        function=full,
        args=args,
        consts=dict(consts or {}),
        capturable=capturable,
        op=op,
    )
    return (call,)


def emit_call(op: str, function: str, args: str, consts: str = "", capturable: bool = True) -> Emit:
    """Emit one call over boundary values, with properties of the single op as constants.

    `args` and `consts` are space-separated names.
    """

    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        views = tuple(match.view(a) for a in args.split())
        values = {c: match.attr("op", c) for c in consts.split()}
        return launch(op, function, views, values, capturable=capturable)

    return emit


def scale_view(match: Match, weight: str) -> View | None:
    """The block scales of a weight, None where it has none."""
    return match.view(f"{weight}:scale") if match.is_scaled(weight) else None


def torch_calls(count: int) -> Callable[[Match, Knobs], Work]:
    """The default work, as `count` torch calls: each costs about one launch on every device."""
    return lambda match, knobs: replace(match.work(), launches=count)


def f32_bytes(*shape: int) -> int:
    """Bytes of a temporary."""
    return 4 * prod(shape)


def copies_of_rows(match: Match, cache: str) -> int:
    """How many f32 copies of the cached rows that are read exist at once.

    A scaled layout's bytes are cut apart, widened, scaled and joined again.
    """
    return 3 if LAYOUTS[match.layout(cache)].element else 5


def value_bytes(match: Match, value: str) -> int:
    """Bytes of a dense value."""
    return prod(match.shape(value)) * DTYPE_BYTES[match.dtype(value)]
