"""The passes by name, loaded when first asked for. Knows their names, never what they do."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module

from xdsl.passes import ModulePass

PASSES: tuple[str, ...] = ("assign-formats", "shard", "localise", "specialise", "clean-up")
"""`assign-formats` is `AssignFormatsPass` in `assign_formats.py`: the name says where it lives."""


class UnknownPass(ValueError):
    """No pass has this name; the message lists those that exist."""


def _loader(name: str) -> Callable[[], type[ModulePass]]:
    module = f"lostwax.ir.passes.{name.replace('-', '_')}"
    class_name = "".join(word.capitalize() for word in name.split("-")) + "Pass"
    return lambda: getattr(import_module(module), class_name)


def find_pass(name: str) -> type[ModulePass]:
    """The class of a pass; UnknownPass suggests the nearest name."""
    if name in PASSES:
        return _loader(name)()
    close = difflib.get_close_matches(name, PASSES, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownPass(f"unknown pass {name!r}.{hint} Known: {', '.join(PASSES)}")
