"""Which versions a certificate names: those that were there, never those that were hoped for."""

from __future__ import annotations

from collections.abc import Mapping

import lostwax
from lostwax.backends.registry import Backend
from lostwax.ir.contract.artifact import Manifest


def compiled_with(manifest: Manifest, backend: Backend) -> dict[str, str]:
    """lostwax and what compiled the artifact's kernels.

    What host functions were written for stands beside these in the manifest, and is no evidence:
    nobody has asked a machine for it.
    """
    hoped: Mapping[str, str] = {}
    if backend.written_for is not None:
        hoped = backend.load(backend.written_for)()
    found = {name: version for name, version in manifest.toolchain.items() if name not in hoped}
    return {"lostwax": lostwax.__version__} | found
