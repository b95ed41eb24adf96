"""What differs at the start between what an artifact was compiled for and what is installed.

Never run on a device. Says a line for every difference; an operator that is not the known one is
computed by torch's operators, or the start is refused (`kernels/operators.py`). What torch computes
in its place is as exact, and slower; golden probes run again, as the driver's fingerprint has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from lostwax.backends.ascend.contract.versions import WRITTEN_FOR
from lostwax.backends.ascend.installed import DRIVER, installed, told
from lostwax.backends.ascend.kernels.operators import operators_of, replaced
from lostwax.backends.ascend.target import GRAPHS
from lostwax.ir.contract.artifact import Manifest


def preflight(manifest: Manifest, functions: Iterable[Callable[..., None]]) -> tuple[str, ...]:
    """Lines for whoever starts it: an artifact, and the host functions that its programs call.

    Raises MissingPackage where an operator is wrong and nothing can take its place.
    """
    called = {name for function in functions for name in operators_of(function)}
    stands_in = (
        f"{name} is computed by torch's operators, slower: {wrong}"
        for name, wrong in replaced(called).items()
    )
    versions = compared(manifest.toolchain, installed())
    return (*versions, *_untold(), *stands_in, *_unverified(manifest))


def _untold() -> Iterator[str]:
    if reason := told().why_not:
        yield f"torch_npu does not say what it stands on: {reason}"


def _unverified(manifest: Manifest) -> Iterator[str]:
    target = manifest.target
    if target.replay == "graph":
        yield (
            f"{target.name} replays decode steps as NPUGraphs, which no device has shown to work:"
            f" {target.name.removesuffix(GRAPHS)} calls their operators one by one"
        )
    if manifest.world_size > 1:
        count = manifest.world_size
        yield f"{count} ranks exchange values by HCCL, which no device has shown to work"


def compared(recorded: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """A line for each version that is another than the artifact's."""
    for package in WRITTEN_FOR:
        wanted, here = recorded.get(package), found.get(package, "")
        if wanted is None:
            yield f"the artifact does not say which {package} it was compiled for; {_here(here)}"
        elif here != wanted:
            yield (
                f"the artifact was compiled for {package} {wanted}; {_here(here)}. Each operator is"
                " looked for, and golden probes run again"
            )
    if DRIVER in found:
        yield f"the NPU's driver is {found[DRIVER]}; which one CANN wants is not known to lostwax"


def _here(version: str) -> str:
    return f"{version} is installed" if version else "which is installed cannot be told"
