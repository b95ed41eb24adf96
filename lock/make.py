"""Writes lock/*.txt: every package of ./dev with the hashes of its published files.

Versions come from constraints.txt, names from pyproject.toml, hashes from `uv pip compile`, which
must be on PATH. Run as `./dev lock` after a change of either. Knows no version itself.

    core.txt   what serving needs, with what builds the project
    cuda.txt   what torch's CUDA build asks for beside that; its CPU build needs none of it
    dev.txt    what tests and linters need beside core.txt
    clients.txt, containers.txt  what the lanes of these names need beside both
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
CUDA = re.compile(r"nvidia-.+|cuda-.+|triton")
"""Packages that only torch's CUDA build brings, by name: uv resolves that build."""
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
PLACES = [
    LINUX
    | {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    | {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"}
    | {"platform_machine": machine}
    for minor in (11, 12, 13, 14)
    for machine in ("x86_64", "aarch64")
]
"""Where ./dev runs; packages for other places only are left out."""
WITHOUT_WHEEL = ("rouge-score", "sqlitedict", "word2number")
"""lm-eval asks for them and imports them for tasks only that no test of ours runs."""
LANES = ("clients", "containers")
"""Extras that only a lane of .ci/slow installs."""
Locked = dict[str, tuple[Requirement, frozenset[str]]]
"""By canonical name: the pin and its files' hashes."""


def read(text: str) -> Locked:
    """The requirements of a file in pip's format, each with its hashes."""
    found: Locked = {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            requirement = Requirement(line.partition(" --hash")[0].strip())
            hashes = frozenset(HASH.findall(line))
            found[canonicalize_name(requirement.name)] = requirement, hashes
    return found


def _extra(extras: dict[str, list[str]], name: str) -> Iterator[str]:
    """The requirements of an extra, those of the extras that it names included."""
    for line in extras[name]:
        requirement = Requirement(line)
        if requirement.name != "lostwax":
            yield line
        for other in requirement.extras if requirement.name == "lostwax" else ():
            yield from _extra(extras, other)


def _resolve(requirements: list[str]) -> Locked:
    """All that they bring to the places of `PLACES`, pinned by constraints.txt."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate"]
    command += ["--constraints", str(ROOT / "constraints.txt")]
    given = "\n".join(requirements)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.writelines(f"{name}; python_version < '3'\n" for name in WITHOUT_WHEEL)
        overrides.flush()
        command += ["--overrides", overrides.name, "-"]
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return {
        name: (requirement, hashes)
        for name, (requirement, hashes) in read(done.stdout).items()
        if requirement.marker is None or any(map(requirement.marker.evaluate, PLACES))
    }


def _write(name: str, what: str, locked: Locked) -> None:
    head = (
        f"# {what}\n# Made by ./dev lock from constraints.txt and pyproject.toml: change those.\n"
    )
    blocks = (
        " \\\n".join([str(requirement), *(f"    --hash={each}" for each in sorted(hashes))])
        for _, (requirement, hashes) in sorted(locked.items())
    )
    (FOLDER / name).write_text(head + "\n".join(blocks) + "\n", encoding="utf-8")


def main() -> None:
    """Write the files; end with a sentence where constraints.txt lacks a package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    build = project["build-system"]["requires"]
    core = _resolve([*project["project"]["dependencies"], *build])
    extras = project["project"]["optional-dependencies"]
    dev = _resolve([*_extra(extras, "dev")])
    lanes = {name: _resolve([*_extra(extras, name)]) for name in LANES}
    pins = read((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    found = core | dev | {name: each for lane in lanes.values() for name, each in lane.items()}
    missing = sorted({str(pin) for name, (pin, _) in found.items() if name not in pins})
    if missing:
        sys.exit("lock: add to constraints.txt, then run this again:\n" + "\n".join(missing))
    torch, hashes = core["torch"]
    of_cpu, cpu_hashes = read((FOLDER / "torch-cpu.txt").read_text(encoding="utf-8"))["torch"]
    if of_cpu.specifier != torch.specifier:
        sys.exit(f"lock: lock/torch-cpu.txt has the hashes of {of_cpu}; write those of {torch}")
    core["torch"] = torch, hashes | cpu_hashes
    cuda = {name: core.pop(name) for name in list(core) if CUDA.fullmatch(name)}
    _write("core.txt", "What serving needs, with what builds the project.", core)
    _write("cuda.txt", "What torch's CUDA build asks for beside core.txt.", cuda)
    beside = {name: found for name, found in dev.items() if name not in core}
    _write("dev.txt", "What tests and linters need beside core.txt.", beside)
    for lane, locked in lanes.items():
        beside = {name: found for name, found in locked.items() if name not in core | dev}
        _write(f"{lane}.txt", f"What the lane `{lane}` needs beside core.txt and dev.txt.", beside)


if __name__ == "__main__":
    main()
