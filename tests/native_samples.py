"""Launches of every native kernel, of random numbers, over memory as large as its rule says."""

from __future__ import annotations

import numpy as np

from lostwax.backends.cpu.contract.rule import (
    LONG,
    Appended,
    ByteCache,
    Cache,
    Memory,
    Nothing,
    Numbers,
    Real,
    RealRows,
    Rule,
    Whole,
)
from lostwax.backends.cpu.contract.rule import Parameter as Wanted
from lostwax.backends.cpu.contract.rules import RULES
from lostwax.ir.contract.parameter import Null, Parameter, Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch
from lostwax.ir.contract.view import Space, View

SIZES = (0, 1, 1, 2, 3, 5, 8, 16, 17, 33, 48, 64, 65, 130)
SOME = SIZES[1:]
"""Without 0: two billion rows of no width are harmless, and take a minute."""
TOKENS = 5
"""Of a page, where no integer says it."""
LARGEST = 1 << 17
"""Elements of a pointer."""


def sample(symbol: str, rng: np.random.Generator, sizes: tuple[int, ...] = SIZES) -> KernelLaunch:
    """One launch that its rule allows, and would not if there were less of anything."""
    rule = RULES[symbol]
    own = [each for each in rule.parameters if not isinstance(each, Appended)]
    while True:
        numbers = Numbers({each.name: _number(each, rng, sizes) for each in own})
        if not all(demand.holds(numbers) for demand in rule.demands):
            continue
        params = tuple(_parameter(each, numbers) for each in own)
        views = [each.view for each in params if isinstance(each, Pointer)]
        if max(abs(view.num_bytes) for view in views) <= LARGEST:
            return launch_of(rule, params, rule.scratch_bytes(numbers))


def launch_of(rule: Rule, params: tuple[Parameter, ...], scratch_bytes: int) -> KernelLaunch:
    """A launch as `native` of the lowerings makes it."""
    return KernelLaunch(
        binary="native.so",
        symbol=rule.symbol,
        grid=(1, 1, 1),
        block=(1, 1, 1),
        params=params,
        shared_bytes=scratch_bytes,
        op="cpu_native_sample",
    )


def _number(wanted: Wanted, rng: np.random.Generator, sizes: tuple[int, ...]) -> int:
    match wanted:
        case Whole(least=0, most=1):
            return int(rng.integers(2))
        case Whole(least=least, most=most):
            return int(rng.choice([n for n in sizes if least <= n <= most]))
        case Memory(may_be_null=True):
            return bool(rng.integers(2))
        case Nothing() | Real():
            return False
        case _:
            return True


def _parameter(wanted: Wanted, numbers: Numbers) -> Parameter:
    name = wanted.name
    match wanted:
        case Whole():
            return Scalar("i32", getattr(numbers, name))
        case Real():
            return Scalar("f32", 0.5)
        case Cache(dtype=dtype):
            tokens = TOKENS if wanted.page_tokens is None else wanted.page_tokens(numbers)
            shape = (-1, tokens, wanted.width(numbers))
            return _pointer(name, dtype, shape, "plane")
        case ByteCache():
            shape = (-1, wanted.page_tokens(numbers), wanted.row_bytes(numbers))
            return _pointer(name, "u8", shape, "plane")
        case Memory(dtype=dtype) if getattr(numbers, name):
            return _pointer(name, dtype, (wanted.reach(numbers),), "arena")
        case RealRows():
            return _pointer(name, "i32", (1,), "input")
        case _:
            return Null()


def _pointer(name: str, dtype: str, shape: tuple[int, ...], space: Space) -> Pointer:
    dtype = LONG.get(dtype, dtype)
    strides = (shape[1] * shape[2], shape[2], 1) if len(shape) == 3 else (1,)
    return Pointer(View(space=space, name=name, dtype=dtype, shape=shape, strides=strides))
