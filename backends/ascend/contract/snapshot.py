"""The schemas of the operators that are called, kept as data, and how others differ from them.

Knows no torch. `backends/ascend/contract/schemas.json` is made by the command in
`backends/ascend/README.md` from an installed torch_npu.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

SNAPSHOT = Path(__file__).with_name("schemas.json")


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`torch_npu`: the version that had these schemas, by operator."""

    torch_npu: str
    schemas: dict[str, str]


def read_snapshot(path: Path = SNAPSHOT) -> Snapshot:
    """The kept schemas. Raises msgspec.DecodeError for a damaged file."""
    return msgspec.json.decode(path.read_bytes(), type=Snapshot)


def snapshot_text(snapshot: Snapshot) -> bytes:
    """The file's content: one operator a line, so that a change reads as one."""
    ordered = Snapshot(snapshot.torch_npu, dict(sorted(snapshot.schemas.items())))
    return msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n"


def differences(kept: Mapping[str, str], found: Mapping[str, str | None]) -> list[str]:
    """A line for each operator that is missing, and for each argument or result that changed."""
    return [line for name in sorted(kept) for line in _changes(name, kept[name], found.get(name))]


def _changes(name: str, kept: str, found: str | None) -> Iterator[str]:
    if found is None:
        yield f"{name}: missing"
        return
    before, after = _arguments(kept), _arguments(found)
    for argument in (*before, *(name for name in after if name not in before)):
        was, now = before.get(argument), after.get(argument)
        if was is None:
            yield f"{name}: new argument {argument}: {now}"
        elif now is None:
            yield f"{name}: argument {argument} is gone (was {was})"
        elif was != now:
            yield f"{name}: argument {argument} was {was}, is {now}"
    if list(before) != list(after) and before.keys() == after.keys():
        yield f"{name}: its arguments stand in another order"
    was, now = _result(kept), _result(found)
    if was != now:
        yield f"{name}: gave {was}, gives {now}"


def _result(schema: str) -> str:
    return schema.rpartition("->")[2].strip()


def _arguments(schema: str) -> dict[str, str]:
    """Each argument's type and default by its name; keyword-only ones say so."""
    inside = schema.rpartition("->")[0].strip()
    inside = inside[inside.index("(") + 1 : inside.rindex(")")]
    found: dict[str, str] = {}
    keyword = ""
    for part in _split(inside):
        if part == "*":
            keyword = "keyword "
            continue
        declared, equals, default = part.partition("=")
        kind, _, argument = declared.rpartition(" ")
        found[argument] = f"{keyword}{kind}{equals}{default}"
    return found


def _split(arguments: str) -> list[str]:
    """At commas outside of brackets: types and defaults hold some."""
    parts = re.split(r",\s*(?![^\[(]*[\])])", arguments)
    return [part.strip() for part in parts if part.strip()]
