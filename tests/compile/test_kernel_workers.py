"""Kernels are compiled side by side, and nothing of the artifact tells how."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from nvcc_here import needs_nvcc
from small_fixtures import CompileSmall
from stub_compiler import COMPILER, FULL, NONE

from lostwax.backends import kernel_pool
from lostwax.backends.artifact_writer import ArtifactUnwritable, atomic_folder
from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.plan.kernel_builder import BuiltKernels, building
from lostwax.backends.plan.kernel_requests import KernelRequests, stand_in
from lostwax.backends.plan.link import link
from lostwax.backends.registry import find_target
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Null
from lostwax.ir.contract.program import KernelLaunch


def source(symbol: str, ms: int = 0, **signature: str) -> KernelSource:
    """A request that takes the stub so long; its code is some module that is there."""
    return KernelSource(
        language="triton",
        path="stub_compiler",
        symbol=symbol,
        signature=signature,
        constants={"MS": ms},
    )


def build(
    folder: Path,
    sources: list[KernelSource],
    jobs: int,
    named: str = COMPILER,
    shared_memory_bytes: int = 16,
) -> BuiltKernels:
    backend, target = find_target("null")
    target = structs.replace(target, shared_memory_bytes=shared_memory_bytes)
    with building(replace(backend, compiler=named), target, folder / "kernels", sources, jobs) as b:
        return b.finish()


def workers(folder: Path) -> set[int]:
    """Processes that have compiled something."""
    return set(map(int, (folder / "pids").read_text().split()))


def is_there(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "kernels").iterdir()}


def test_kernels_and_notes_are_the_same_whichever_ends_first(tmp_path: Path) -> None:
    slow_first = [source(f"k{i}", ms=120 - 20 * i, b="*f32", a="i32") for i in range(6)]
    built: list[BuiltKernels] = []
    for jobs in (1, 3):
        built.append(build(tmp_path / str(jobs), slow_first, jobs))
        assert len(workers(tmp_path / str(jobs))) == jobs
        assert not any(map(is_there, workers(tmp_path / str(jobs))))
    one, three = built
    assert one == three
    assert list(one.by_source) == list(three.by_source) == [s.digest() for s in slow_first]
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert one.toolchain == {"stub": "1"}
    assert b"'b': '*f32', 'a': 'i32'" in contents(tmp_path / "1")[one.kernels[0].binary]


def test_a_kernel_that_its_target_could_not_launch_is_refused(tmp_path: Path) -> None:
    message = "kernel wide takes 16 bytes of shared memory a block, target null has 15 "
    with pytest.raises(KernelCompileError, match=message):
        build(tmp_path, [source("wide")], jobs=1, shared_memory_bytes=15)


def test_as_many_workers_as_there_is_work_for(tmp_path: Path) -> None:
    build(tmp_path, [source("only", ms=10)], jobs=8)
    assert len(workers(tmp_path)) == 1
    assert build(tmp_path / "none", [], jobs=8) == BuiltKernels({}, {})
    assert not (tmp_path / "none").exists()


def test_no_more_workers_than_ever_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_pool, "MOST_WORKERS", 2)
    build(tmp_path, [source(f"k{i}", ms=50) for i in range(4)], jobs=4)
    assert len(workers(tmp_path)) == 2


@pytest.mark.parametrize(
    ("symbol", "said"),
    [
        ("refused", r"^refused with {'MS': 30}$"),
        (
            "unexpected",
            r"^stub_compiler:unexpected with {'MS': 30} did not compile:\n[^$]*IndexErr",
        ),
        ("killed", r"that compiles killed with {'MS': 30} was killed, as the system does where"),
    ],
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_kernel_that_fails_says_which_it_is(
    tmp_path: Path, symbol: str, said: str, jobs: int
) -> None:
    """Also where a later one fails earlier; and no worker is left."""
    sources = [source("good"), source(symbol, ms=30), source("refused", ms=1), source("good", ms=2)]
    with pytest.raises(KernelCompileError, match=said):
        build(tmp_path, sources, jobs)
    assert not any(map(is_there, workers(tmp_path)))


def test_a_compiler_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(KernelCompileError, match=r"^the stub is not installed$"):
        build(tmp_path, [source("a"), source("b")], 2, NONE)


@pytest.fixture
def no_utf8(tmp_path: Path) -> Path:
    """A folder whose name is Latin-1's."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    return folder


def test_paths_need_not_be_utf8(
    no_utf8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the artifact's nor those that modules are found on."""
    (no_utf8 / "compiler_there.py").write_text("from stub_compiler import StubCompiler\n")
    monkeypatch.setattr(sys, "path", [str(no_utf8), *sys.path])
    there = build(no_utf8, [source("k")], 1, "compiler_there:StubCompiler")
    assert there == build(tmp_path, [source("k")], 1)
    assert contents(no_utf8) == contents(tmp_path)


@pytest.mark.parametrize(("symbol", "named"), [("full", COMPILER), ("good", FULL)])
def test_a_disk_that_is_full_for_a_worker_is_full_for_the_compile(
    tmp_path: Path, symbol: str, named: str
) -> None:
    out = tmp_path / "out"
    said = f"cannot write {out} (No space left on device); free some space, nothing was left behind"
    with pytest.raises(ArtifactUnwritable) as raised, atomic_folder(out) as work:
        build(work, [source(symbol), source("good")], 2, named)
    assert (raised.value.errno, raised.value.strerror) == (errno.ENOSPC, said)
    assert not list(tmp_path.glob("*out*"))


def test_what_the_system_refuses_a_worker_keeps_its_path(no_utf8: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        build(no_utf8, [source("absent")], 1)
    assert raised.value.filename == str(no_utf8 / "kernels" / "absent" / "file")
    assert isinstance(raised.value.__cause__, KernelCompileError)
    assert "stub_compiler:absent with {'MS': 0} did not compile" in str(raised.value.__cause__)


def test_what_compilers_leave_in_the_temporary_folder_goes_with_them(tmp_path: Path) -> None:
    build(tmp_path, [source("temporary")], 1)
    left = Path((tmp_path / "left").read_text())
    assert left.name == "kernel.ptx"
    assert not left.parent.exists()


def test_what_a_compiler_has_started_ends_with_its_worker(tmp_path: Path) -> None:
    build(tmp_path, [source("starts")], 1)
    stat = Path("/proc", (tmp_path / "child").read_text(), "stat")
    deadline = time.monotonic() + 20
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":  # ended
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)


def test_a_file_beside_the_caller_stands_for_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('this is not msgspec')\n")
    monkeypatch.chdir(tmp_path)
    assert len(build(tmp_path, [source("k")], 1).kernels) == 1


def test_who_leaves_early_leaves_no_worker(tmp_path: Path) -> None:
    backend, target = find_target("null")
    backend = replace(backend, compiler=COMPILER)
    sources = [source("first"), *(source(f"slow{i}", ms=60_000) for i in range(4))]
    begin = time.monotonic()

    def interrupted() -> None:
        with building(backend, target, tmp_path / "kernels", sources, 2):
            while not (tmp_path / "pids").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begin < 30
    assert not any(map(is_there, workers(tmp_path)))


KILLED = """
import sys
from pathlib import Path
from test_kernel_workers import build, source
build(Path(sys.argv[1]), [source("first"), source("second", ms=1000), source("third")], 1)
"""


def test_a_compile_that_is_killed_leaves_no_worker(tmp_path: Path) -> None:
    """It ends with its input, when it has done with its kernel."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}
    )
    while not (tmp_path / "pids").exists() or not workers(tmp_path):
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    (worker,) = workers(tmp_path)
    deadline = time.monotonic() + 20
    while is_there(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_target_without_a_compiler_refuses_kernels() -> None:
    backend, target = find_target("cpu")
    without = replace(backend, compiler=None)
    with pytest.raises(KernelCompileError, match=r"^target cpu has no .*asks for some$"):
        KernelRequests(without, target).request(source("some"))


def test_launches_get_what_only_the_compiler_knows(tmp_path: Path) -> None:
    asked = source("k")
    kernel = stand_in(asked)
    launch = KernelLaunch(
        binary=kernel.binary, symbol="k", grid=(1, 1, 1), block=(128, 1, 1), params=(), op="k"
    )
    built = build(tmp_path, [asked], 1)
    (linked,) = link((launch,), built.by_source)
    assert isinstance(linked, KernelLaunch)
    assert linked.binary == built.kernels[0].binary
    assert (linked.params, linked.shared_bytes) == ((Null(), Null()), 16)
    (again,) = link((structs.replace(launch, shared_bytes=16),), built.by_source)
    assert isinstance(again, KernelLaunch)
    assert again.shared_bytes == 16, "asked for by a stand-in and its kernel: once"


@pytest.mark.slow
@needs_nvcc
def test_an_artifact_is_the_same_from_one_process_and_from_two(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    pytest.importorskip("triton", reason="the extra `aot` is not installed")
    one = compile_small(tmp_path / "1", "cuda-sm90a", dtype="bf16", jobs=1)
    two = compile_small(tmp_path / "2", "cuda-sm90a", dtype="bf16", jobs=2)
    assert len(one.kernels) > 2
    assert one == two


@needs_nvcc
def test_what_nvcc_says_of_a_kernel_reaches_the_compile(tmp_path: Path) -> None:
    """From a worker, in nvcc's own words."""
    pytest.importorskip("triton", reason="the extra `aot` is not installed")
    backend, target = find_target("cuda-sm90a")
    lacks = KernelSource(language="cuda", path="topk.cu", symbol="sm90_topk", constants={})
    with (
        pytest.raises(KernelCompileError, match=r"nvcc(.|\n)*error: (.|\n)*CLUSTER"),
        building(backend, target, tmp_path / "kernels", [lacks], 1) as built,
    ):
        built.finish()
