"""`lostwax records add`: a report that came back from a device, filed in a record store.

All of it is read and checked before anything is written. Times nothing and runs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

import lostwax
from lostwax.backends.runtime.say import result, result_json, say
from lostwax.cli.bring_up import DOCTOR, SITES
from lostwax.cli.named_paths import REPORT, OutFolder, Report
from lostwax.cli.option_types import Json
from lostwax.ir.contract.foreign_file import BadFile, decoded, read_bounded
from lostwax.ir.contract.one_line import one_line

if TYPE_CHECKING:
    from lostwax.ir.contract.record import Record

MAX_DOCTOR_BYTES = 1 << 20
"""It is a page."""


class BadReport(ValueError):
    """A report that cannot be filed; the message names the file and what to do."""


class _Site(msgspec.Struct):
    """What is read of a line of certify.jsonl."""

    error: str | None


def records_add(
    report: Report,
    /,
    *,
    out: Annotated[OutFolder, Parameter(name=["-o", "--out"])],
    json_: Json = False,
) -> None:
    """Put the records of a bring-up's report into a record store.

    Of two records of one lowering and its knobs the stronger state stays, then the one with more
    samples; a report that is added again changes nothing. What was wrong on the device is told,
    and has no record.

    Parameters
    ----------
    report
        The folder that was sent back, or its records.jsonl alone.
    out
        The folder of records to add to.
    json_
        Print what was filed as JSON on standard output.
    """
    from lostwax.backends.records.report import origin, read_report
    from lostwax.backends.records.store import RecordStore

    is_whole = report.is_dir()
    path = report / REPORT if is_whole else report
    target = _target(report / DOCTOR) if is_whole else None
    wrong = list(_wrong(report / SITES)) if is_whole else None
    for each in wrong or ():
        say(f"WRONG {each}")
    records = read_report(path)
    found = origin(path, records)
    if found.version != lostwax.__version__:
        say(
            f"made by lostwax {found.version}, and this is {lostwax.__version__}: records of code"
            " that is another now are kept and never chosen"
        )
    if target is not None:
        _tell_unknown(target, records)
    changed = RecordStore((out,)).take(records)
    states = dict(Counter(record.certificate.state for record in records))
    keys = len({record.key.digest() for record in records})
    if json_:
        told: dict[str, object] = {"target": target, "sku": found.sku, "lostwax": found.version}
        counts = {"records": len(records), "keys": keys, "changed": changed}
        of_sites = {"wrong": None if wrong is None else len(wrong)}
        result_json(told | counts | of_sites | {"states": states})
        return
    of_target = "" if target is None else f" for {target}"
    shown = [f"{count} {state}" for state, count in states.items()]
    if wrong is not None:
        shown.append(f"{len(wrong)} wrong")
    result(f"{path}: {len(records)} records of {found.sku}{of_target}: {', '.join(shown)}")
    result(f"{out}: {changed} of {keys} keys are new or have changed")


def _target(path: Path) -> str:
    """The target that the report says it is of. Raises BadReport."""
    from lostwax.backends.registry import UnknownTarget, find_target
    from lostwax.cli.doctor import Findings

    try:
        found = decoded(read_bounded(path, MAX_DOCTOR_BYTES), Findings, path)
    except BadFile as error:
        raise BadReport(f"{error}; ask for the whole folder, or give its {REPORT} alone") from error
    if len(found.targets) != 1:
        raise BadReport(f"{path} is of {len(found.targets)} targets; a report is of one")
    name = found.targets[0].target
    try:
        find_target(name)
    except UnknownTarget as error:
        raise BadReport(
            f"{path} is of another lostwax: {error}; add it with one that has this target"
        ) from error
    return name


def _wrong(path: Path) -> Iterator[str]:
    """What was wrong on the device; nothing where nothing was certified. Raises BadReport."""
    from lostwax.backends.records.report import MAX_BYTES

    if not path.exists():
        return
    try:
        for number, line in enumerate(read_bounded(path, MAX_BYTES).splitlines(), 1):
            site = decoded(line, _Site, Path(f"{path}:{number}"))
            if site.error is not None:
                yield site.error
    except BadFile as error:
        raise BadReport(f"{error}; ask for it again, or remove that line") from error


def _tell_unknown(target: str, records: Sequence[Record]) -> None:
    """Say which lowerings this lostwax does not have: their records are kept, and never chosen."""
    from lostwax.backends.registry import find_target

    backend, described = find_target(target)
    known = {lowering.name for lowering in backend.load(backend.lowerings)(described)}
    unknown = sorted({record.key.lowering for record in records} - known)
    if unknown:
        names = one_line(", ".join(unknown), 400)
        say(f"this lostwax has no lowering of {target} that is called {names}: never chosen")
