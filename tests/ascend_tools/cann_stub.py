"""Builds libraries that stand in for CANN's, so that torch_npu can be imported: no NPU is there.

Run by the environment's interpreter, with a folder, and names of functions that CANN's operators
are called by. What is missing is found in torch_npu's own libraries (nm), and every missing
function says that it failed, but for those of `ANSWERS`; gcc makes one library of them, which is
copied under each name that is asked for. Operators' functions are in a library beside it, and fail,
too; those that torch_npu does not know by name end this.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

NAMES = (
    "libhccl", "libascendcl", "libacl_op_compiler", "libge_runner", "libgraph",
    "libacl_tdt_channel", "libatb",
)  # fmt: skip
"""What torch_npu's libraries ask for."""
FAILED = 507899
"""An error of the runtime. `aclrtGetDevice` must fail: what asks for a device's number after it
succeeded ends the process."""
ANSWERS = {
    "aclrtGetDeviceCount": "int aclrtGetDeviceCount(unsigned *n) { *n = 0; return 0; }",
    "aclInit": "int aclInit(const char *path) { return 0; }",
    "aclFinalize": "int aclFinalize(void) { return 0; }",
    "aclrtGetSocName": "const char *aclrtGetSocName(void) { return 0; }",
    "aclGetRecentErrMsg": 'const char *aclGetRecentErrMsg(void) { return "no CANN here"; }',
    "aclAppLog": "void aclAppLog(int level, ...) {}",
    "MsprofRegisterCallback": "int MsprofRegisterCallback(unsigned m, void *f) { return 0; }",
    "MsprofSysCycleTime": "unsigned long MsprofSysCycleTime(void) { return 0; }",
    "MsprofGetHashId": "unsigned long MsprofGetHashId(const char *s, long n) { return 0; }",
}
"""What importing asks and must be told."""
NOT_OURS = ("Py", "_Py", "__gmon", "_ITM")
"""What the interpreter and the compiler's runtime have."""


def _symbols(library: Path, which: str) -> Iterable[tuple[str, str]]:
    """Name and kind of each dynamic symbol; versioned ones are the system's own."""
    listed = subprocess.run(
        ["nm", "-D", which, library], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        *_, kind, name = line.split()
        yield name, kind


def missing(packages: Path) -> list[str]:
    """Functions that torch_npu calls and nobody here has, by name."""
    own = [*packages.glob("torch_npu/lib/*.so"), *packages.glob("torch_npu/*.so")]
    if not own:
        raise SystemExit(f"{packages} has no torch_npu: run tests/ascend_tools/environments.py")
    wanted: dict[str, set[str]] = {}
    for library in own:
        for name, kind in _symbols(library, "--undefined-only"):
            if "@" not in name:
                wanted.setdefault(name, set()).add(kind)
    had = {
        name.split("@")[0]
        for library in (*own, *packages.glob("torch/lib/*.so"), *_system())
        for name, _ in _symbols(library, "--defined-only")
    }
    return sorted(
        name
        for name, kinds in wanted.items()
        if name not in had and not kinds <= {"w", "v"} and not name.startswith(NOT_OURS)
    )


def _system() -> Iterable[Path]:
    cache = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    names = ("libstdc++.so.6", "libc.so.6", "libm.so.6", "libgcc_s.so.1")
    for line in cache.splitlines():
        if line.strip().startswith(names):
            yield Path(line.split()[-1])


def build_operators(folder: Path, names: list[str]) -> None:
    """Write the library of operators."""
    packages = Path(sysconfig.get_paths()["purelib"])
    known = (packages / "torch_npu" / "lib" / "libtorch_npu.so").read_bytes()
    unknown = [name for name in names if name.encode() + b"\0" not in known]
    if unknown:
        raise SystemExit(f"torch_npu calls none of {', '.join(unknown)}")
    _compile(folder / "libopapi.so", {n: f"int {n}(void) {{ return {FAILED}; }}" for n in names})


def _compile(library: Path, bodies: Mapping[str, str]) -> None:
    source = library.with_suffix(".c")
    source.write_text("\n".join(bodies.values()) + "\n")
    subprocess.run(["gcc", "-w", "-shared", "-fPIC", source, "-o", library], check=True)


def build(folder: Path) -> int:
    """Write the libraries into the folder; how many functions they have."""
    folder.mkdir(parents=True, exist_ok=True)
    names = missing(Path(sysconfig.get_paths()["purelib"]))
    library = folder / "stub.so"
    failing = {name: f"int {name}(void) {{ return {FAILED}; }}" for name in names}
    _compile(library, failing | {name: ANSWERS[name] for name in names if name in ANSWERS})
    for name in NAMES:
        shutil.copy(library, folder / f"{name}.so")
    return len(names)


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
    build_operators(Path(sys.argv[1]), sys.argv[2:])
