"""The dialects by name, loaded when first asked for. Every op says what, never how."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.ir import Dialect

DIALECTS: tuple[str, ...] = ("core", "quant", "mla", "dsa", "moe", "kv", "sample", "dist")


def _loader(name: str) -> Callable[[], Dialect]:
    return lambda: getattr(import_module(f"lostwax.ir.dialects.{name}"), name.upper())


def _types() -> Dialect:
    from lostwax.ir.scale_layouts import (
        BlockScaleAttr,
        ChannelScaleAttr,
        StoredAttr,
        TwoLevelScaleAttr,
    )
    from lostwax.ir.types import CacheType, SizeAttr, TensorType

    scales = [BlockScaleAttr, ChannelScaleAttr, TwoLevelScaleAttr]
    return Dialect("lostwax", [], [TensorType, CacheType, SizeAttr, *scales, StoredAttr])


def context() -> Context:
    """A context in which every lostwax module parses."""
    ctx = Context()
    ctx.load_dialect(builtin.Builtin)
    ctx.load_dialect(func.Func)
    ctx.register_dialect("lostwax", _types)
    for name in DIALECTS:
        ctx.register_dialect(name, _loader(name))
    return ctx
