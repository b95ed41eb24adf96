"""What lostwax calls of AITER, AMD's kernels, as `amd-aiter` packages it. Imports it nowhere.

`tests/backends/aiter_signatures.json` holds what the wheel's functions take, read from its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import files

from lostwax.backends.runtime.argument_contract import signatures, unfit

PACKAGE, VERSION = "amd-aiter", "0.1.7"
"""The distribution, and how its version begins: others may differ in what follows."""
CALLS: Mapping[str, tuple[str, ...]] = {
    "aiter/mla.py:mla_decode_fwd": (
        "q", "kv_buffer", "o", "qo_indptr", "kv_indptr", "kv_indices", "kv_last_page_lens",
        "max_seqlen_q", "sm_scale",
    ),
}  # fmt: skip
"""The functions that are called, by file and name, and the arguments that they are given."""
HEADS = (16, 128)
"""Heads that its decode takes of one row a request, in bf16."""


def misfit() -> str | None:
    """Why what is installed is not what CALLS were written for; reads its sources only."""
    paths = {str(path): path for path in files(PACKAGE) or ()}
    for call, given in CALLS.items():
        file, name = call.split(":")
        if file not in paths:
            return f"it has no {file}"
        taken = signatures(paths[file].read_text(encoding="utf-8")).get(name)
        reason = f"{file} has no {name}" if taken is None else unfit(call, given, taken)
        if reason is not None:
            return reason
    return None
