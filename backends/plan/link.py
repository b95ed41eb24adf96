"""Puts compiled kernels into launches that name their sources. Compiles none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import structs

from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.parameter import Null
from lostwax.ir.contract.program import KernelLaunch, Launch, Program


def link(launches: Iterable[Launch], kernels: Mapping[str, CompiledKernel]) -> tuple[Launch, ...]:
    """The launches with their binaries' names, shared memory and trailing pointers. What a binary
    does not say of shared memory (a native kernel's scratch) is as the launch has it.

    `kernels` are by their sources' digests, which the launches have for a binary (`stand_in`).
    """
    return tuple(
        _linked(each, kernels[each.binary]) if isinstance(each, KernelLaunch) else each
        for each in launches
    )


def _linked(launch: KernelLaunch, kernel: CompiledKernel) -> KernelLaunch:
    return structs.replace(
        launch,
        binary=kernel.binary,
        params=(*launch.params, *(Null(),) * kernel.trailing_nulls),
        shared_bytes=kernel.shared_bytes or launch.shared_bytes,
    )


def link_program(program: Program, kernels: Mapping[str, CompiledKernel]) -> Program:
    """The program with all its launches linked."""
    return structs.replace(
        program,
        prepare=link(program.prepare, kernels),
        blocks={name: link(block, kernels) for name, block in program.blocks.items()},
        finish=link(program.finish, kernels),
    )
