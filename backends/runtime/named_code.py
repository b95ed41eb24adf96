"""The one place where a name from a file becomes code: an import and an attribute.

A file may name only what a target's own kernel packages define: neither other modules, nor what
those happen to import. Runs nothing.
"""

from __future__ import annotations

from importlib import import_module
from inspect import isfunction
from typing import Any

from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.ir.contract.one_line import one_line


def _lies_below(module: str, packages: tuple[str, ...]) -> bool:
    return any(module.startswith(f"{package}.") for package in packages)


def _is_name(text: str) -> bool:
    return text.isidentifier() and not text.startswith("_")


# `Any`: a function, or what a kernel language made of one.
def named_code(module: str, name: str, packages: tuple[str, ...]) -> Any:
    """The function `name` of a module below one of `packages`, or a wrapped one with its `fn`.

    Raises ArtifactError if the name leads out of the packages, if what it leads to was defined
    elsewhere, or if there is no such function.
    """
    shown = one_line(f"{module}:{name}")
    if not _lies_below(module, packages) or not all(map(_is_name, (*module.split("."), name))):
        raise ArtifactError(
            f"'{shown}' lies outside this target's kernels ({', '.join(packages)});"
            " the artifact is foreign or damaged: recompile it"
        )
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        found = None
    function = getattr(found, "fn", found)  # Triton keeps a kernel's function so
    if not isfunction(function):
        raise ArtifactError(
            f"this lostwax has no kernel function '{shown}'; recompile the artifact"
        )
    if not _lies_below(function.__module__, packages):
        raise ArtifactError(
            f"'{shown}' is a function of {function.__module__}, outside this target's kernels; the"
            " artifact is foreign or damaged: recompile it"
        )
    return found
