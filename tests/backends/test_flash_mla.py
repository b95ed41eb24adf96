"""FlashMLA by name: what the lowerings hand to it, what they ask of it, and who may choose them.

No GPU: the library is a stand-in, or its Python source is read. What the wheel computes is not
tested here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from lostwax.backends.cuda.flash_mla_calls import CALLS, PACKAGE, unfit
from lostwax.backends.cuda.kernels import flash_mla
from lostwax.backends.cuda.lowerings.flash_mla import FLASH_MLA
from lostwax.backends.cuda.target import CUDA_SM90A, CUDA_SM100A
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.runtime.argument_contract import signatures
from lostwax.backends.runtime.error_causes import with_causes
from lostwax.backends.runtime.require_packages import MissingPackage
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, HostCall
from lostwax.ir.contract.target import Target

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
WHEELS = ROOT / ".lostwax" / "wheels"
SOURCES = ("flash_mla/flash_mla_interface.py", "flash_mla/_loader.py")
KV, SPARSE = FLASH_MLA
BOUND = 3e-2


def source_of_the_wheel() -> str | None:
    """Its Python source: of what is installed, else of a wheel in WHEELS."""
    try:
        found = [f for f in files(PACKAGE) or () if str(f) in SOURCES]
    except PackageNotFoundError:
        found = []
    if found:
        return "\n".join(f.read_text() for f in found)
    for path in WHEELS.glob("sgl_flash_mla-*.whl"):
        with zipfile.ZipFile(path) as wheel:
            return "\n".join(wheel.read(name).decode() for name in SOURCES)
    return None


def test_the_wheel_takes_what_it_is_given() -> None:
    source = source_of_the_wheel()
    if source is None:
        pytest.skip(
            f"{PACKAGE} is not installed, and {WHEELS} has no wheel of it: `pip download --no-deps"
            f" -d {WHEELS} {PACKAGE}==1.0.0`"
        )
    found = signatures(source)
    assert {name: unfit(name, found[name]) for name in CALLS} == dict.fromkeys(CALLS)


def test_a_changed_signature_is_told() -> None:
    now = signatures((TESTS / "flash_mla_stand_in.py").read_text())
    assert {name: unfit(name, now[name]) for name in CALLS} == dict.fromkeys(CALLS)
    sparse = now["flash_mla_sparse_fwd"]
    renamed = {("scale" if name == "sm_scale" else name): must for name, must in sparse.items()}
    assert unfit("flash_mla_sparse_fwd", renamed) == "flash_mla_sparse_fwd takes no sm_scale"
    more = sparse | {"sinks": True, "window": False}
    assert unfit("flash_mla_sparse_fwd", more) == "flash_mla_sparse_fwd asks for sinks"


def always(value: object) -> Callable[[object], object]:
    return lambda _: value


def of_before(q: object, kv: object) -> None:
    """A call with fewer arguments."""


def library(**changed: object) -> dict[str, Any]:
    import flash_mla_stand_in

    return {name: getattr(flash_mla_stand_in, name) for name in CALLS} | changed


@pytest.mark.parametrize(
    ("version", "changed", "said"),
    [
        (None, {}, r"sgl-flash-mla 1\.x, which is not installed: install it with"),
        ("2.0.1", {}, r"which is 2\.0\.1: .*, or compile without flashmla_\*"),
        ("1.1.0", {"has_legacy": lambda: False}, r"1\.1\.0 was built without its kernels"),
        ("1.1.0", {"flash_mla_sparse_fwd": of_before}, r"takes no indices, sm_scale"),
        ("1.1.0", {"get_mla_metadata": None}, r"it has no get_mla_metadata"),
    ],
)
def test_another_library_is_refused_with_the_remedy(
    version: str | None,
    changed: Mapping[str, object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flash_mla, "installed_version", always(version))
    monkeypatch.setitem(sys.modules, flash_mla.MODULE, SimpleNamespace(**library(**changed)))
    with pytest.raises(MissingPackage, match=said):
        flash_mla.require_library()


@pytest.mark.parametrize("error", [AttributeError("no op"), SystemExit("no GPU")])
def test_whatever_its_import_raises_is_why_it_is_not_there(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(_: str) -> object:
        raise error

    monkeypatch.setattr(flash_mla, "installed_version", always("1.0.0"))
    monkeypatch.setattr(flash_mla, "import_module", raising)
    with pytest.raises(MissingPackage, match=f"does not load beside torch .*{with_causes(error)}"):
        flash_mla.require_library()


def test_the_library_that_is_meant_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_mla, "installed_version", always("1.0.0"))
    monkeypatch.setitem(sys.modules, flash_mla.MODULE, SimpleNamespace(**library()))
    flash_mla.require_library()


def test_results_are_those_of_the_reference_with_a_stand_in() -> None:
    pytest.importorskip("triton", reason="the extra `aot` is not installed")
    script = Path(__file__).parent / "interpreted" / "run_flash_mla.py"
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert len(errors) == 8
    assert {name: error for name, error in errors.items() if error > BOUND} == {}


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
    layout: str = "fp8_656",
    heads: int = 128,
    page: int = 64,
    keys: int = 2048,
    target: Target = CUDA_SM90A,
) -> PlainMatch:
    """Two rows at V3.2's sizes."""
    row, dtype = (656, "u8") if layout == "fp8_656" else (576, "bf16")
    values = {
        "q_nope": Value((2, heads, 128), "bf16"),
        "q_pe": Value((2, heads, 64), "bf16"),
        "kv_b": Value((heads * 256, 512), "bf16"),
        "cache_in": Value((9, page, row), dtype, parts=(512, 64), layout=layout),
        "selection": Value((2, keys), "i32"),
        "positions": Value((2,), "i32"),
        "q_starts": Value((3,), "i32"),
        "page_table": Value((2, 4), "i32"),
        "op.out": Value((2, heads * 128), "bf16"),
    }
    scale = {("op", "scale"): 0.1}
    return PlainMatch(target, Bucket(2, 2, 4, 2), values, scale, NamesOnly(), Path())


@pytest.mark.parametrize(
    ("lowering", "given", "said"),
    [
        (KV, {"layout": "bf16"}, "layout of cache_in is bf16"),
        (SPARSE, {}, "layout of cache_in is fp8_656"),
        (KV, {"heads": 129}, "axis 1 of q_nope is 129"),
        (KV, {"page": 16}, "pages of 16 tokens, wants 64"),
        (KV, {"keys": 2000}, "wants a multiple of 64"),
        (SPARSE, {"layout": "bf16", "keys": 192}, "wants a multiple of 128"),
        (KV, {"target": CUDA_SM100A}, "matrix_units"),
    ],
)
def test_what_the_library_does_not_take_is_refused(
    lowering: Any, given: Mapping[str, Any], said: str
) -> None:
    refusal = lowering.when.refusal(match(**given))
    assert refusal is not None
    assert said in refusal


@pytest.mark.parametrize(("lowering", "layout"), [(KV, "fp8_656"), (SPARSE, "bf16")])
def test_launches_around_the_call_are_our_own(lowering: Any, layout: str) -> None:
    at = match(layout=layout)
    launches = at.emit(lowering)
    calls = [launch for launch in launches if isinstance(launch, HostCall)]
    assert [call.function.rpartition(".")[2].split(":")[0] for call in calls] == ["flash_mla"]
    assert {"absorb_tiles", "selected_slots", "expand_tiles"} == set(at.compiled)
    assert lowering.requires == (PACKAGE,)
    assert lowering.by_name
    query = 2 * 128 * 2 * (576 + 512)
    assert lowering.allocates(at, {}) >= query
    assert lowering.allocates(match(layout=layout, heads=16), {}) >= query // 2  # padded to 64


def test_of_splits_the_library_keeps_partial_results() -> None:
    least = replace(CUDA_SM90A, compute_units=1)
    more = KV.allocates(match(), {}) - KV.allocates(match(target=least), {})
    assert more >= 131 * 128 * 512 * 4
