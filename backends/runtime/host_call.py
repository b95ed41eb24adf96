"""Binds host calls: finds the named function, checks that the target may call it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature

from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import Resolve
from lostwax.backends.runtime.named_code import named_code
from lostwax.ir.contract.foreign_file import reason
from lostwax.ir.contract.program import HostCall, Launch


def bind_only_host_calls(
    launch: Launch, resolve: Resolve, packages: tuple[str, ...]
) -> Callable[[], None]:
    """`bind_host_call` for a target without kernels of its own; ArtifactError for a kernel."""
    if not isinstance(launch, HostCall):
        raise ArtifactError(
            f"{launch.op}: this target launches no compiled kernels; the artifact is for another"
            " target: recompile it"
        )
    return bind_host_call(launch, resolve, packages)


def bind_host_call(
    call: HostCall, resolve: Resolve, packages: tuple[str, ...]
) -> Callable[[], None]:
    """The call with its tensors, which `resolve` gives, and constants bound.

    Raises ArtifactError if the function is none of `packages` (a program is data: it may name only
    kernels of its own target) or takes other arguments.
    """
    module, _, name = call.function.partition(":")
    function = named_code(module, name, packages)
    tensors = [None if a is None else resolve(a) for a in call.args]
    try:
        signature(function).bind(*tensors, **call.consts)
    except TypeError as error:
        raise ArtifactError(
            f"{call.function} does not take what the program gives it ({reason(error)});"
            " recompile the artifact"
        ) from error
    return partial(function, *tensors, **call.consts)
