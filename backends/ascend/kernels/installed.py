"""Whether installed operators have the schemas that the calls here were written for."""

from __future__ import annotations

from typing import Any, cast

import torch

from lostwax.backends.ascend.contract.snapshot import differences, read_snapshot
from lostwax.backends.runtime.require_packages import MissingPackage


def require_library() -> None:
    """Raise MissingPackage, with what differs, unless every operator has the schema it had."""
    snapshot = read_snapshot()
    found = {name: installed_schema(name) for name in snapshot.schemas}
    wrong = differences(snapshot.schemas, found)
    if wrong:
        raise MissingPackage(
            "the installed torch_npu has operators that lostwax was not written for (it was for"
            f" {snapshot.torch_npu}):\n  " + "\n  ".join(wrong) + "\ninstall that version, or"
            " compile with --lowering OP=portable_… for the ops that call these"
        )


def installed_schema(name: str) -> str | None:
    """The schema of `torch.ops.npu.<name>` in this process, None where it is not registered."""
    schemas: list[Any] = cast("Any", torch)._C._jit_get_schemas_for_operator(f"npu::{name}")
    plain = [str(schema) for schema in schemas if not schema.overload_name]
    return plain[0] if plain else None
