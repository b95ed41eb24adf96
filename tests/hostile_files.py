"""Files as damage or malice leave them: whole files, and single values of JSON. Judges nothing.

Every mutant comes from a seed, so that a number names it again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = Any  # what json gives
Steps = tuple[str | int, ...]
"""Where a value lies: keys and indices from the outside in."""

DEPTH = 100_000
RAW = "\ue000raw:"
"""Begins a string that stands for text which is no JSON of Python's."""


@dataclass(frozen=True)
class Mutant:
    """A change of one file: `what` says which, `apply` makes it."""

    what: str
    apply: Callable[[Path], None]


def _flip(path: Path, random_: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = random_.randrange(len(content))
    content[at] ^= 1 << random_.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, random_: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random_.randrange(len(content))])


def _overwrite(path: Path, random_: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = random_.randrange(len(content))
    content[at : at + 16] = random_.randbytes(16)
    path.write_bytes(content)


def _replaced(make: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    def change(path: Path, random_: random.Random) -> None:
        path.unlink()
        make(path)

    return change


def _written(content: bytes) -> Callable[[Path, random.Random], None]:
    return _replaced(lambda path: path.write_bytes(content))


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # an address of a socket has at most 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


FILES: dict[str, Callable[[Path, random.Random], None]] = {
    "a bit": _flip,
    "cut": _cut,
    "overwritten": _overwrite,
    "missing": _replaced(lambda path: None),
    "empty": _written(b""),
    "not UTF-8": _written(b'{"\xff\xfe": "\xc3"}'),
    "NULs": _written(bytes(4096)),
    "deep lists": _written(b"[" * DEPTH),
    "deep objects": _written(b'{"a":' * DEPTH + b"1" + b"}" * DEPTH),
    "deep lists in an object": _written(b'{"x":' + b"[" * DEPTH + b"]" * DEPTH + b"}"),
    "a number": _written(b"1"),
    "null": _written(b"null"),
    "a list": _written(b"[]"),
    "an object": _written(b"{}"),
    "four terabytes": _replaced(_sparse),
    "a FIFO": _replaced(os.mkfifo),
    "a folder": _replaced(lambda path: path.mkdir()),
    "a socket": _replaced(_socket),
    "a link to nothing": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a link to /dev/zero": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to a folder": _replaced(lambda path: path.symlink_to("/")),
    "a link to a file": _replaced(lambda path: path.symlink_to("/etc/hostname")),
}
"""Ways in which a whole file can be wrong."""


def file_mutants(path: Path, seed: int) -> Iterator[Mutant]:
    """Every way of `FILES` for one file."""
    for name, change in FILES.items():
        random_ = random.Random(f"{seed} {path.name} {name}")

        def apply(at: Path, change: Any = change, random_: random.Random = random_) -> None:
            change(at, random_)

        yield Mutant(f"{path.name}: {name}", apply)


VALUES: tuple[Json, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 4097, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40,
    (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 64, 10**30, 10**4000, 0.5, -0.0, 1e308, 1e-320,
    "", "a", "..", "../x", "/etc/passwd", "/dev/zero", "a/b", "a\x00b", "two\nlines", "\x1b[2J",
    "\u202egnp", "é" * 300, "x" * 100_000, "os:system", "builtins:exec", "lostwax.__init__:x",
    "f64", "f8E4M3FN", "arena", "weight", "decode", [], {}, [[]], [0], [-1], [None], ["a"],
    {"a": 1}, [0] * 1000, [1 << 40] * 9, f"{RAW}NaN", f"{RAW}Infinity", f"{RAW}1e999",
    f"{RAW}" + "[" * DEPTH + "]" * DEPTH, f'{RAW}"\\ud800"', f"{RAW}{'9' * 5000}", f"{RAW}01",
)  # fmt: skip
"""What may stand in a value's place."""


def _places(value: Json, at: Steps = ()) -> Iterator[Steps]:
    """Every place of a structure, its containers too."""
    yield at
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()  # pyright: ignore[reportUnknownMemberType]
    elif isinstance(value, list):
        items = enumerate(value)  # pyright: ignore[reportUnknownArgumentType]
    for key, each in items:
        yield from _places(each, (*at, key))


def _at(value: Json, steps: Steps) -> Json:
    for step in steps:
        value = value[step]
    return value


def _numbers(value: Json, random_: random.Random) -> Json:
    """Another number near this one, or far."""
    if isinstance(value, bool) or not isinstance(value, int):
        return random_.choice(VALUES)
    return random_.choice([value + 1, value - 1, -value, value * 2, value + (1 << 20), value // 2])


def value_mutants(
    content: bytes, name: str, count: int, seed: int, within: str = ""
) -> Iterator[tuple[str, bytes]]:
    """Texts with one value changed, each with what was done; `within` is part of its place."""
    whole = json.loads(content)
    by_form: dict[str, list[Steps]] = {}
    for steps in _places(whole):
        form = ".".join("*" if isinstance(step, int) else step for step in steps)
        by_form.setdefault(form, []).append(steps)
    random_ = random.Random(f"{seed} {name}")
    forms = sorted(form for form in by_form if within in form)
    for number in range(count):
        # Every kind of field in turn: else a file's thousands of strides would be all there is.
        form = forms[number % len(forms)] if count >= len(forms) else random_.choice(forms)
        steps = random_.choice(by_form[form])
        yield _changed(json.loads(content), steps, by_form, name, random_)


def _changed(
    whole: Json, steps: Steps, by_form: dict[str, list[Steps]], name: str, random_: random.Random
) -> tuple[str, bytes]:
    if not steps:
        value = random_.choice(VALUES)
        return f"{name}: the whole = {value!r:.40}", _text(value)
    parent, last = _at(whole, steps[:-1]), steps[-1]
    way = random_.choice(("value", "value", "near", "removed", "swapped", "renamed"))
    if way == "removed":
        del parent[last]
    elif way == "renamed" and isinstance(parent, dict):
        parent[random_.choice(("other", "../x", "a\nb", ""))] = parent.pop(last)
    elif way == "swapped":
        other = random_.choice(by_form[random_.choice(sorted(by_form))])
        parent[last] = json.loads(json.dumps(_at(whole, other)))
    elif way == "near":
        parent[last] = _numbers(parent[last], random_)
    else:
        parent[last] = random_.choice(VALUES)
    return f"{name}: {'.'.join(map(str, steps))} {way}", _text(whole)


def _text(value: Json) -> bytes:
    """JSON, with what only text can say put in."""
    text = json.dumps(value)
    for raw in (v for v in VALUES if isinstance(v, str) and v.startswith(RAW)):
        text = text.replace(json.dumps(raw), raw.removeprefix(RAW))
    return text.encode()


def restore(path: Path, whole: bytes | None) -> None:
    """Put a file back, whatever lies in its place; None: there was none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if whole is not None:
        path.write_bytes(whole)
