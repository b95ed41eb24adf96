"""`lostwax certify`: an artifact's lowerings on this device, beside the fp64 reference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def certify(
    artifact: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["-o", "--out"])] = None,
    own_only: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Run every chosen lowering by itself on this device and compare with the reference.

    Exits with 1 if one disagrees.

    Parameters
    ----------
    artifact
        The artifact folder; its target's device must be here.
    out
        Folder of records to add the certificates to.
    own_only
        Only lowerings with compiled kernels, not the portable host calls.
    """
    from lostwax.backends.certify import certify_artifact
    from lostwax.backends.store import RecordStore

    failed = 0
    lowerings: Counter[str] = Counter()
    for result in certify_artifact(artifact, own_only):
        lowerings[result.lowering] += 1
        place = f"{result.lowering:<34} {'+'.join(result.ops)}"
        if result.record is None:
            failed += 1
            print(f"WRONG     {place}\n          {result.program}: {result.error}", flush=True)
            continue
        found = result.record.certificate
        agreement = "" if found.set_agreement is None else f" sets {found.set_agreement:.1%}"
        errors = f"max {found.max_error:.1e} rms {found.rms_error:.1e}"
        print(f"{found.state}  {errors}  {place}{agreement}", flush=True)
        if out is not None:
            RecordStore((out,)).put(result.record)
    print(f"{sum(lowerings.values())} places of {len(lowerings)} lowerings, {failed} wrong")
    if failed:
        raise SystemExit(1)
