"""A compile that cannot write, is killed, or meets another leaves no half of an artifact."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import QUICK, Run, listing, one_sentence
from small_fixtures import Compiled

from lostwax.backends import artifact_writer
from lostwax.backends.artifact_writer import ArtifactUnwritable, CompileRuns, atomic_folder
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.artifact import Manifest

CompileSmall = Callable[..., Manifest]
LIMITED = """
import resource, sys
from lostwax.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
main(sys.argv[1:])
"""


def test_a_disk_that_takes_no_more_leaves_nothing(small_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["compile", str(small_checkpoint), "-o", str(tmp_path / "art"), *QUICK]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    sentence = one_sentence(done.stderr)
    assert f"cannot write {tmp_path / 'art'} (File too large); raise the limit" in sentence
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "give an -o on a file system")],
)
def test_a_disk_that_refuses_says_what_to_do(
    run: Run,
    small_artifact: Compiled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    remedy: str,
) -> None:
    def refuse(folder: Path, manifest: Manifest) -> Manifest:
        raise OSError(code, os.strerror(code), str(folder))

    monkeypatch.setattr("lostwax.backends.compile.seal", refuse)
    out = tmp_path / "art"
    status, _, err = run("compile", small_artifact.checkpoint, "-o", out, *QUICK)
    assert status == 1
    assert f"cannot write {out} ({os.strerror(code)}); {remedy}" in one_sentence(err)
    assert listing(tmp_path) == []


def test_a_full_disk_elsewhere_is_named(tmp_path: Path) -> None:
    """As of what a compiler writes beside the artifact."""
    beside, elsewhere = tmp_path / "arts", tmp_path / "tmp" / "kernel.ptx"
    with pytest.raises(ArtifactUnwritable) as raised, atomic_folder(beside / "art"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(elsewhere))
    assert raised.value.strerror == (
        f"cannot write {elsewhere} (No space left on device); free some space, nothing was left"
        " behind"
    )
    assert listing(beside) == []


def test_what_is_refused_elsewhere_is_not_the_artifact(tmp_path: Path) -> None:
    """Another -o would not help who may not read a checkpoint."""
    elsewhere = str(tmp_path / "checkpoint")
    with pytest.raises(PermissionError) as raised, atomic_folder(tmp_path / "arts" / "art"):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), elsewhere)
    assert raised.value.filename == elsewhere


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_says_so(
    run: Run, small_checkpoint: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o555)
    status, _, err = run("compile", small_checkpoint, "-o", tmp_path / "art", *QUICK)
    tmp_path.chmod(0o755)
    assert status == 1
    assert "give an -o that you may write" in one_sentence(err)


HANG = """
import sys, time
from pathlib import Path
from lostwax.backends.artifact_writer import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("an artifact")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hanging(tmp_path: Path):
    """A process in the middle of a compile into `tmp_path/art`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HANG, str(tmp_path / "art")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_killed_compile_leaves_no_artifact_and_the_next_one_cleans_up(
    hanging: subprocess.Popen[str], compile_small: CompileSmall, tmp_path: Path
) -> None:
    hanging.send_signal(signal.SIGKILL)
    hanging.wait()
    assert not (tmp_path / "art").exists()
    assert [Path(n).name for n in listing(tmp_path) if n.endswith("half")] == ["half"]
    compile_small(tmp_path / "art")
    assert [p.name for p in tmp_path.iterdir()] == ["art"]
    ArtifactReader(tmp_path / "art").verify_all()


def test_a_compile_beside_another_of_the_same_artifact_is_refused(
    hanging: subprocess.Popen[str], compile_small: CompileSmall, tmp_path: Path
) -> None:
    with pytest.raises(CompileRuns, match=r"another process compiles .* wait until it ends"):
        compile_small(tmp_path / "art")
    assert len(list(tmp_path.iterdir())) == 1, "the other one's work is untouched"
    compile_small(tmp_path / "other")
    ArtifactReader(tmp_path / "other").verify_all()


def test_what_lies_beside_with_a_similar_name_is_left_alone(tmp_path: Path) -> None:
    for name in (".art", ".art.compiling", "art.compiling.x", ".art2.compiling.x"):
        (tmp_path / name).mkdir()
    before = listing(tmp_path)
    with atomic_folder(tmp_path / "art") as folder:
        (folder / "file").write_text("")
    assert listing(tmp_path) == sorted([*before, "art", "art/file"])


def test_a_compile_killed_at_any_moment_leaves_the_old_artifact_or_the_new(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    """Many folders are replaced while the process is killed; each stays whole."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from lostwax.backends.artifact_writer import atomic_folder\n"
        "for n in range(10**9):\n"
        "    with atomic_folder(Path(sys.argv[1])) as f:\n"
        "        (f / 'manifest.json').write_text(str(n)); (f / 'twin').write_text(str(n))\n"
    )
    for wait_s in (0.05, 0.1, 0.15):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "art")])
        while not (tmp_path / "art").exists():
            time.sleep(0.01)
        time.sleep(wait_s)
        process.kill()
        process.wait()
        one, two = (tmp_path / "art" / n for n in ("manifest.json", "twin"))
        assert one.read_text() == two.read_text()
    with tempfile.TemporaryDirectory(dir=tmp_path), atomic_folder(tmp_path / "art") as folder:
        (folder / artifact_writer.MANIFEST).write_text("")
    assert [p.name for p in tmp_path.iterdir()] == ["art"]
