"""Whether a library's function takes what it is given, by names. Imports and runs no library."""

from __future__ import annotations

import ast
from collections.abc import Mapping


def signatures(source: str) -> dict[str, dict[str, bool]]:
    """Of each function at a module's top its parameters, True where there is no default."""
    found: dict[str, dict[str, bool]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            required = len(names) - len(node.args.defaults)
            taken = {name: i < required for i, name in enumerate(names)}
            keywords = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            found[node.name] = taken | {a.arg: default is None for a, default in keywords}
    return found


def unfit(name: str, given: tuple[str, ...], taken: Mapping[str, bool]) -> str | None:
    """Why a function cannot be called with the arguments `given`; `taken` are its parameters, True
    if required."""
    unknown = [arg for arg in given if arg not in taken]
    lacking = [arg for arg, is_required in taken.items() if is_required and arg not in given]
    if unknown:
        return f"{name} takes no {', '.join(unknown)}"
    return f"{name} asks for {', '.join(lacking)}" if lacking else None
