"""What a backend says of the libraries that are here, once its device is open: at every start."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lostwax.backends.registry import Backend
from lostwax.ir.contract.artifact import Manifest


def run_preflight(
    backend: Backend,
    manifest: Manifest,
    functions: Iterable[Callable[..., None]],
    warn: Callable[[str], None],
) -> None:
    """Tell `warn` each line; `functions` are the host functions that the programs call.

    Raises MissingPackage where an artifact cannot run on what is here.
    """
    if backend.preflight is not None:
        for line in backend.load(backend.preflight)(manifest, functions):
            warn(line)
