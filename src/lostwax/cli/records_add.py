"""`lostwax records add`: a report that came back from a device, filed in a record store.

All of it is read and checked before anything is written. Times nothing and runs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import lostwax
from lostwax.backends.runtime.say import result, result_json, say
from lostwax.cli.bring_up import DOCTOR, SITES
from lostwax.cli.named_paths import REPORT, OutFolder, Report
from lostwax.cli.option_types import Json
from lostwax.ir.contract.foreign_file import BadFile, MissingFile, decoded, read_bounded
from lostwax.ir.contract.one_line import one_line

if TYPE_CHECKING:
    from lostwax.backends.lowering import Lowering
    from lostwax.backends.records.report import Origin
    from lostwax.cli.doctor import Health
    from lostwax.cli.site_lines import Sites
    from lostwax.ir.contract.record import Record

MAX_DOCTOR_BYTES = 1 << 20
"""It is a page."""


class BadReport(ValueError):
    """A report that cannot be filed; the message names the file and what to do."""


def records_add(
    report: Report,
    /,
    *,
    out: Annotated[OutFolder, Parameter(name=["-o", "--out"])],
    json_: Json = False,
) -> None:
    """Put the records of a bring-up's report into a record store.

    Of two records of one lowering and its knobs the stronger state stays; a report that is added
    again changes nothing. What was wrong on the device is told, and has no record; so is a run that
    did not come to its end. Exits with 1 where there is no record at all, and says why.

    Parameters
    ----------
    report
        The folder that was sent back, or its records.jsonl alone.
    out
        The folder of records to add to.
    json_
        Print what was filed as JSON on standard output.
    """
    from lostwax.backends.records.report import (
        origin,
        read_report,
        require_evidence,
        require_settings,
    )
    from lostwax.backends.records.store import RecordStore

    is_whole = report.is_dir()
    path = report / REPORT if is_whole else report
    health = _health(report / DOCTOR) if is_whole else None
    sites = _sites(report / SITES) if is_whole else None
    for each in () if sites is None else sites.wrong:
        say(f"WRONG {each}")
    records = read_report(path)
    target = None if health is None else health.target
    if not records:
        if json_:
            result_json(_as_json(target, None, records, 0, sites))
        raise BadReport(_without_records(path, sites, is_whole=is_whole))
    found = origin(path, records)
    require_evidence(path, records)
    lowerings = _lowerings(target)
    require_settings(path, records, lowerings)
    if health is not None:
        _require_device(report / DOCTOR, health, records)
    if found.version != lostwax.__version__:
        say(
            f"made by lostwax {found.version}, and this is {lostwax.__version__}: records of code"
            " that is another now are kept and never chosen"
        )
    _tell_unknown(target, records, lowerings)
    changed = RecordStore((out,)).take(records)
    if json_:
        result_json(_as_json(target, found, records, changed, sites))
        return
    of_target = "" if target is None else f" for {target}"
    states = _states(records)
    shown = [f"{count} {state}" for state, count in states.items()]
    shown += _shown(sites, is_whole=is_whole, ran="executed" in states)
    result(f"{path}: {len(records)} records of {found.sku}{of_target}: {', '.join(shown)}")
    result(f"{out}: {changed} of {_count_keys(records)} keys are new or have changed")


def _states(records: Sequence[Record]) -> dict[str, int]:
    return dict(Counter(record.certificate.state for record in records))


def _count_keys(records: Sequence[Record]) -> int:
    return len({record.key.digest() for record in records})


def _as_json(
    target: str | None,
    found: Origin | None,
    records: Sequence[Record],
    changed: int,
    sites: Sites | None,
) -> dict[str, object]:
    """What `--json` prints; null is what nobody knows."""
    return {
        "target": target,
        "sku": None if found is None else found.sku,
        "lostwax": None if found is None else found.version,
        "records": len(records),
        "keys": _count_keys(records),
        "changed": changed,
        "wrong": None if sites is None else len(sites.wrong),
        "seen": None if sites is None else sites.seen,
        "expected": None if sites is None else sites.expected,
        "finished": None if sites is None else sites.is_whole,
        "states": _states(records),
    }


def _without_records(path: Path, sites: Sites | None, *, is_whole: bool) -> str:
    """Why a report has nothing to file, which is no word on the device where nothing was tried."""
    if sites is None:
        if not is_whole:
            return f"{path} holds no record, and only the whole folder says why; give that"
        return (
            f"{path} holds no record, and there is no {SITES} beside it: no lowering was tried; ask"
            " for what the terminal showed, too"
        )
    far = "" if sites.is_whole else f" ({sites.seen} of {sites.expected} sites, not finished)"
    if sites.seen == 0:
        return (
            f"{path} holds no record: no site came to its end{far}; ask for what the terminal"
            " showed, too, and for what `lostwax certify ART --own-only` says"
        )
    if len(sites.wrong) < sites.seen:
        return (
            f"{path} holds no record, and by {SITES} beside it"
            f" {sites.seen - len(sites.wrong)} sites were right{far}; ask for the whole folder as"
            " it was written"
        )
    return (
        f"{path} holds no record: all {sites.seen} sites that were tried were wrong{far}, as is"
        " said above; there is nothing to file"
    )


def _shown(sites: Sites | None, *, is_whole: bool, ran: bool) -> Iterator[str]:
    """How much of the artifact is known, in words: nothing is not wrong for want of a line."""
    if sites is None:
        if is_whole and ran:
            yield f"without {SITES}, so that nobody knows what was wrong"
        return
    if sites.wrong or sites.is_whole:
        yield f"{len(sites.wrong)} wrong"
    if not sites.is_whole:
        yield f"{sites.seen} of {sites.expected} sites, not finished"


def _health(path: Path) -> Health:
    """The target that the report says it is of, and its device. Raises BadReport."""
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
    return found.targets[0]


def _require_device(path: Path, health: Health, records: Sequence[Record]) -> None:
    """BadReport where what was executed is of another device than the one that was opened."""
    for number, record in enumerate(records, 1):
        ran = record.certificate.state == "executed"
        if record.key.sku not in ({health.sku} if ran else {health.sku, health.arch}):
            there = one_line(health.sku) or "no device that was opened"
            raise BadReport(
                f"{path.with_name(REPORT)}:{number} is of a {one_line(record.key.sku)}, and {path}"
                f" of {there}: files of two reports; ask for the whole folder as it was written"
            )


def _sites(path: Path) -> Sites | None:
    """What became of the sites; None where nothing was certified. Raises BadReport."""
    from lostwax.backends.records.report import MAX_BYTES
    from lostwax.cli.site_lines import read_sites

    try:
        return read_sites(path, MAX_BYTES)
    except MissingFile:
        return None
    except BadFile as error:
        raise BadReport(f"{error}; ask for it again, or remove that line") from error


def _lowerings(target: str | None) -> dict[str, list[Lowering]]:
    """Those of the target by name; where none is said, those of every target."""
    from lostwax.backends.registry import backends

    found: dict[str, list[Lowering]] = {}
    for backend in backends().values():
        for each in backend.load(backend.targets):
            if target in (None, each.name):
                for lowering in backend.load(backend.lowerings)(each):
                    found.setdefault(lowering.name, []).append(lowering)
    return found


def _tell_unknown(
    target: str | None, records: Sequence[Record], known: Mapping[str, object]
) -> None:
    """Say which lowerings this lostwax does not have: their records are kept, and never chosen."""
    unknown = sorted({record.key.lowering for record in records} - set(known))
    if unknown:
        names = one_line(", ".join(unknown), 400)
        of_target = "" if target is None else f" of {target}"
        say(f"this lostwax has no lowering{of_target} that is called {names}: never chosen")
