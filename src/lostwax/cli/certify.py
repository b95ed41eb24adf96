"""`lostwax certify`: an artifact's lowerings on this device, beside the fp64 reference."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from msgspec import to_builtins

from lostwax.backends.runtime.say import result, result_json
from lostwax.cli.checked_model import require_runnable
from lostwax.cli.named_paths import Artifact, OutFolder
from lostwax.cli.option_types import Flag, Json, OptionRefused

if TYPE_CHECKING:
    from lostwax.backends.proof.certify import Certified
    from lostwax.ir.contract.record import Certificate


def _evidence(found: Certificate, left_out: str | None) -> str:
    if found.max_error is None:
        return f"{found.state:<11}  {'never ran here' if left_out is None else 'left out'}"
    agreement = "" if found.set_agreement is None else f" sets {found.set_agreement:.1%}"
    return f"{found.state:<11}  max {found.max_error:.1e} rms {found.rms_error:.1e}{agreement}"


def certified_line(each: Certified) -> dict[str, object]:
    """What is told of a site as JSON."""
    certificate = None if each.certificate is None else to_builtins(each.certificate)
    return {
        "lowering": each.lowering,
        "ops": each.ops,
        "program": each.program,
        "kernels": each.kernels,
        "error": each.error,
        "left_out": each.left_out,
        "certificate": certificate,
    }


def _lines(each: Certified) -> Iterator[str]:
    site = f"{each.lowering:<34} {'+'.join(each.ops)}"
    if each.certificate is not None:
        yield f"{_evidence(each.certificate, each.left_out)}  {site}"
        return
    yield f"WRONG     {site}"
    yield f"          {each.program}: {each.error}"


def _summary(results: Sequence[Certified]) -> Iterator[str]:
    lowerings = {each.lowering for each in results}
    failed = sum(each.certificate is None for each in results)
    yield f"{len(results)} sites of {len(lowerings)} lowerings, {failed} wrong"
    left_out = Counter(each.left_out for each in results if each.left_out is not None)
    yield from (f"{count} of these were left out: {why}" for why, count in left_out.items())


def _kept_nowhere(artifact: Path, out: Path | None) -> str:
    """What is said of an artifact that was interpreted: `serve` hears nothing of it."""
    records = "-o DIR would keep records" if out is None else f"records are in {out}"
    return f"interpreted, never executed: nothing is noted in {artifact}; {records}"


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

    Exits with 1 if one disagrees. What agrees on its device is noted for `serve`; what is only
    interpreted is noted nowhere but in the records of `-o`.

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
    from lostwax.backends.runtime.torch_extensions import require_torch_loads

    require_torch_loads()
    from lostwax.backends.proof.certify import certify_artifact, keep_evidence
    from lostwax.backends.records.store import RecordStore

    def say(*lines: str) -> None:
        for line in lines if not json_ else ():
            result(line)

    results: list[Certified] = []
    for each in certify_artifact(artifact, own_only, interpret):
        results.append(each)
        if json_:
            result_json(certified_line(each))
        say(*_lines(each))
        if out is not None and each.record is not None:
            RecordStore((out,)).put(each.record)
    say(*_summary(results))
    if any(each.certificate is None for each in results):
        raise SystemExit(1)
    if interpret:
        say(_kept_nowhere(artifact, out))
    else:
        say(str(keep_evidence(artifact, results, certificates)))
