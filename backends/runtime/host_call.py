"""Binds host calls: finds the named function, checks that the target may call it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch

from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import Resolve
from lostwax.ir.contract.program import HostCall


def bind_host_call(
    call: HostCall, resolve: Resolve, packages: tuple[str, ...]
) -> Callable[[], None]:
    """The call with its tensors and constants bound.

    Raises ArtifactError if the function lies outside `packages` (a program is data: it may name
    only kernels of its own target) or does not exist.
    """
    module, _, name = call.function.partition(":")
    if not any(module.startswith(p + ".") for p in packages):
        raise ArtifactError(
            f"{call.function!r} lies outside this target's kernels ({', '.join(packages)});"
            " the artifact is foreign or damaged: recompile it"
        )
    function = getattr(import_module(module), name, None)
    if function is None:
        raise ArtifactError(
            f"this lostwax has no kernel function {call.function!r}; recompile the artifact"
        )
    tensors: list[torch.Tensor | None] = [None if a is None else resolve(a) for a in call.args]
    return partial(function, *tensors, **call.consts)
