"""`lostwax certify`: an artifact's lowerings on this device, beside the fp64 reference."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from msgspec import to_builtins

from lostwax.cli.checked_model import require_runnable
from lostwax.cli.named_paths import Artifact, OutFolder
from lostwax.cli.option_types import Flag, Json, OptionRefused

if TYPE_CHECKING:
    from lostwax.backends.certify import Certified
    from lostwax.ir.contract.record import Certificate


def _evidence(found: Certificate) -> str:
    if found.max_error is None:
        return f"{found.state:<11}  never ran here"
    agreement = "" if found.set_agreement is None else f" sets {found.set_agreement:.1%}"
    return f"{found.state:<11}  max {found.max_error:.1e} rms {found.rms_error:.1e}{agreement}"


def _line(result: Certified) -> str:
    certificate = None if result.record is None else to_builtins(result.record.certificate)
    said = {"lowering": result.lowering, "ops": result.ops, "program": result.program}
    said |= {"kernels": result.kernels, "error": result.error, "certificate": certificate}
    return json.dumps(said)


def _require_device(interpret: bool, certificates: Path | None) -> None:
    if interpret and certificates is not None:
        raise OptionRefused(
            "--certificates keeps what ran on a device, and --interpret runs on none; give one"
        )


def certify(
    artifact: Artifact,
    /,
    *,
    out: Annotated[OutFolder | None, Parameter(name=["-o", "--out"])] = None,
    own_only: Flag = False,
    interpret: Flag = False,
    certificates: OutFolder | None = None,
    json_: Json = False,
) -> None:
    """Run every chosen lowering by itself on this device and compare with the reference.

    Exits with 1 if one disagrees. What agrees on its device is noted for `serve`.

    Parameters
    ----------
    artifact
        The artifact folder; its target's device must be here.
    out
        Folder of records to add the certificates to.
    own_only
        Only lowerings with compiled kernels, not the portable host calls.
    interpret
        Run the same source on the CPU (Triton's interpreter, torch) instead of the binaries.
    certificates
        A folder to keep what this device has proven (default: in the artifact).
    json_
        Print one JSON object a line instead of text.
    """
    _require_device(interpret, certificates)
    if interpret:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which is below
    else:
        require_runnable(artifact, None)
    from lostwax.backends.certify import certify_artifact, keep_evidence
    from lostwax.backends.store import RecordStore

    def say(text: str) -> None:
        if not json_:
            print(text, flush=True)

    failed = 0
    results: list[Certified] = []
    lowerings: Counter[str] = Counter()
    for result in certify_artifact(artifact, own_only, interpret):
        lowerings[result.lowering] += 1
        results.append(result)
        if json_:
            print(_line(result), flush=True)
        place = f"{result.lowering:<34} {'+'.join(result.ops)}"
        if result.record is None:
            failed += 1
            say(f"WRONG     {place}\n          {result.program}: {result.error}")
            continue
        say(f"{_evidence(result.record.certificate)}  {place}")
        if out is not None:
            RecordStore((out,)).put(result.record)
    say(f"{sum(lowerings.values())} places of {len(lowerings)} lowerings, {failed} wrong")
    if failed:
        raise SystemExit(1)
    if not interpret:
        say(str(keep_evidence(artifact, results, certificates)))
