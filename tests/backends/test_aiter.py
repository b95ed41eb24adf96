"""AITER by name: what the lowering hands to it, what it asks of it, and who may choose it.

No AMD GPU: the library is a stand-in, or its Python sources are read and never imported. What it
computes is not tested here.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest
from aiter_snapshot import FUNCTIONS, SNAPSHOT
from interpreting import environment

from lostwax.backends.plan.cover import Forced
from lostwax.backends.plan.forced import UnknownLowering, require_known
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.registry import find_target
from lostwax.backends.rocm import aiter_calls
from lostwax.backends.rocm.aiter_calls import CALLS, DECODE, HEADS, VERSION, misfit
from lostwax.backends.rocm.kernels import aiter, aiter_library
from lostwax.backends.rocm.lowerings.aiter import AITER
from lostwax.backends.runtime.argument_contract import signatures, unfit
from lostwax.backends.runtime.require_packages import MissingPackage
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, HostCall

TESTS = Path(__file__).parents[1]
KEPT: dict[str, Any] = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
BOUND = 3e-2


def test_the_snapshot_takes_what_it_is_given() -> None:
    assert KEPT["version"].startswith(f"{VERSION}.")
    assert set(KEPT["required"]) == {f"{f}:{n}" for f, names in FUNCTIONS.items() for n in names}
    assert {call: unfit(call, given, KEPT["required"][call]) for call, given in CALLS.items()} == (
        dict.fromkeys(CALLS)
    )


def test_the_stand_in_takes_exactly_what_the_wheel_does() -> None:
    own = signatures((TESTS / "aiter_stand_in.py").read_text(encoding="utf-8"))
    assert own["mla_decode_fwd"] == KEPT["required"]["aiter/mla.py:mla_decode_fwd"]


def test_a_changed_signature_is_told() -> None:
    call, taken = DECODE, dict[str, bool](KEPT["required"][DECODE])
    renamed = {("scale" if name == "sm_scale" else name): must for name, must in taken.items()}
    assert unfit(call, CALLS[call], renamed) == f"{call} takes no sm_scale"
    assert unfit(call, CALLS[call], taken | {"page_size": True}) == f"{call} asks for page_size"


@pytest.mark.parametrize(
    ("heads", "target"),
    [(16, "rocm-gfx942"), pytest.param(128, "rocm-gfx950", marks=pytest.mark.slow)],
)
def test_results_are_those_of_the_reference_with_a_stand_in(heads: int, target: str) -> None:
    pytest.importorskip("triton", reason="the extra `aot` is not installed")
    script = Path(__file__).parent / "interpreted" / "run_aiter.py"
    done = subprocess.run(
        [sys.executable, str(script), str(heads), target],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert len(errors) == 1
    assert {name: error for name, error in errors.items() if error > BOUND} == {}


def always(value: object) -> Callable[[object], object]:
    return lambda _: value


@pytest.mark.parametrize(
    ("version", "reason", "said"),
    [
        (None, None, r"amd-aiter 0\.1\.7\.x, which is not installed: install it with"),
        ("0.1.70", None, r"which is 0\.1\.70: .*, or compile without aiter\* in --lowering"),
        ("0.1.7.post2", "it has no aiter/mla.py", r"is not what lostwax calls: it has no aiter/"),
    ],
)
def test_another_library_is_refused_with_the_remedy(
    version: str | None, reason: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiter_library, "installed_version", always(version))
    monkeypatch.setattr(aiter_library, "misfit", always(reason))
    with pytest.raises(MissingPackage, match=said):
        aiter.require_library()


class _File:
    """A file of an installed distribution."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text

    def __str__(self) -> str:
        return self._name

    def read_text(self, encoding: str) -> str:
        return self._text


def test_what_is_installed_is_read_and_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    good = "raise SystemExit\n" + (TESTS / "aiter_stand_in.py").read_text(encoding="utf-8")
    for text, said in (
        (good, None),
        (good.replace("sm_scale", "scale"), "aiter/mla.py:mla_decode_fwd takes no sm_scale"),
        ("", "aiter/mla.py has no mla_decode_fwd"),
    ):
        monkeypatch.setattr(aiter_calls, "files", always([_File("aiter/mla.py", text)]))
        found = misfit(DECODE)
        assert found == said or (said is not None and found is not None and said in found)
    monkeypatch.setattr(aiter_calls, "files", always([]))
    assert misfit(DECODE) == "it has no aiter/mla.py"


def test_no_package_of_that_name_is_needed_to_read_this() -> None:
    with pytest.raises(PackageNotFoundError):
        files("amd-aiter")
    importlib.import_module("lostwax.backends.rocm.kernels.aiter")


class NamesOnly:
    """Stands where the compiler stands."""

    def compile(self, source: KernelSource, folder: Path) -> CompiledKernel:
        return CompiledKernel(
            binary=source.symbol, symbol=source.symbol, digest="", num_warps=source.num_warps,
            shared_bytes=0, registers=0,
        )  # fmt: skip

    def toolchain(self) -> dict[str, str]:
        return {}


def match(
    *,
    target: str = "rocm-gfx942",
    heads: int = 128,
    parts: tuple[int, int] = (512, 64),
    dtype: str = "bf16",
) -> PlainMatch:
    """Two rows at V3.2's sizes."""
    row = sum(parts)
    values = {
        "q_nope": Value((2, heads, 128), "bf16"),
        "q_pe": Value((2, heads, parts[1]), "bf16"),
        "kv_b": Value((heads * 256, parts[0]), "bf16"),
        "cache_in": Value((9, 64, row), dtype, parts=parts, layout=dtype),
        "selection": Value((2, 2048), "i32"),
        "positions": Value((2,), "i32"),
        "q_starts": Value((3,), "i32"),
        "page_table": Value((2, 4), "i32"),
        "op.out": Value((2, heads * 128), "bf16"),
    }
    scale = {("op", "scale"): 0.1}
    return PlainMatch(
        find_target(target)[1], Bucket(2, 2, 4, 2), values, scale, NamesOnly(), Path()
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"heads": 64}, "a rank has 64 heads, wants 16 or 128"),
        ({"parts": (512, 32)}, r"cache rows of 512 \+ 32, wants 512 \+ 64"),
        ({"dtype": "f32"}, "layout of cache_in is f32, wants bf16"),
        ({"target": "cuda-sm90a"}, "matrix_units"),
    ],
)
def test_what_the_library_does_not_take_is_refused(given: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        match(**given).emit(AITER)


@pytest.mark.parametrize("heads", HEADS)
def test_one_host_call_between_own_launches(heads: int) -> None:
    asked = match(heads=heads)
    calls = [x for x in asked.emit(AITER) if isinstance(x, HostCall)]
    (call,) = calls
    assert call.function == "lostwax.backends.rocm.kernels.aiter:attend_selected"
    assert call.capturable
    assert AITER.allocates(asked, AITER.default_knobs()) > 2 * 2 * heads * (576 + 512)


def test_it_is_asked_for_by_name_where_there_is_one() -> None:
    assert AITER.by_name
    rule = (Forced("mla.attend", "aiter"),)
    of = {
        name: find_target(name)[0].load(find_target(name)[0].lowerings)(find_target(name)[1])
        for name in ("rocm-gfx950", "cuda-sm90a")
    }
    require_known(rule, of["rocm-gfx950"])
    with pytest.raises(UnknownLowering, match="aiter is AMD's"):
        require_known(rule, of["cuda-sm90a"])
