"""Whether the host functions that an artifact names are this target's. Runs none of them.

Binding asks again; but a program is bound at its first step on targets that walk their launches,
and weights are loaded before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.named_code import named_code
from lostwax.ir.contract.program import HostCall, launches_of


def require_functions(
    reader: ArtifactReader, packages: tuple[str, ...], begins: Callable[[], None] = lambda: None
) -> tuple[Callable[..., None], ...]:
    """Every function that host calls name, each of one of `packages`. Raises ArtifactError, naming
    the program, where one is not. `begins` is told before the first is imported, and torch with it.

    A module whose functions call another library has a function `require_library` that raises
    MissingPackage where this is not the one that it was written for.
    """
    known: dict[str, Callable[..., None]] = {}
    for ref in reader.manifest.programs:
        for launch in launches_of(reader.program(ref.file)):
            if not isinstance(launch, HostCall) or launch.function in known:
                continue
            if not known:
                begins()
            module, _, name = launch.function.partition(":")
            try:
                function = named_code(module, name, packages)
            except ArtifactError as error:
                raise ArtifactError(f"{reader.folder / ref.file}: {error}") from error
            known[launch.function] = function
            require_library = getattr(sys.modules[function.__module__], "require_library", None)
            if require_library is not None:
                require_library()
    return tuple(known.values())
