"""AITER's calls of single ops by name: what is handed to it, and what is refused and why.

No AMD GPU: the library is a stand-in. What it computes is not tested here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from aiter_snapshot import SNAPSHOT
from interpreting import environment

from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.registry import find_target
from lostwax.backends.rocm.aiter_calls import CALLS, DECODE
from lostwax.backends.rocm.kernels import aiter_library
from lostwax.backends.rocm.lowerings.aiter_ops import AITER_OPS
from lostwax.backends.runtime.argument_contract import signatures
from lostwax.backends.runtime.error_causes import with_causes
from lostwax.ir.contract.program import Bucket, Const, HostCall
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, FP8_ROW_BLOCKS

TESTS = Path(__file__).parents[1]
KEPT: dict[str, Any] = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
BY_NAME: dict[str, Lowering] = {lowering.name: lowering for lowering in AITER_OPS}
FNUZ, FN = "f8E4M3FNUZ", "f8E4M3FN"
# of the experts and of the norm bf16 results, of the logits sums in another order
BOUNDS = {"route": 1e-5, "norm": 2e-1, "logits": 1e-5, "experts": 5e-2}
"""Of the norm a number in many is a step of fp8 off: scales are divided by in another order."""


@pytest.mark.parametrize("target", ["rocm-gfx942", "rocm-gfx950"])
def test_results_are_those_of_the_reference_with_a_stand_in(target: str) -> None:
    pytest.importorskip("triton", reason="the extra `aot` is not installed")
    script = Path(__file__).parent / "interpreted" / "run_aiter_ops.py"
    done = subprocess.run(
        [sys.executable, str(script), target], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert set(errors) == set(BOUNDS)
    assert {name: e for name, e in errors.items() if e > BOUNDS[name]} == {}


def test_the_stand_ins_take_exactly_what_the_wheel_does() -> None:
    own = signatures((TESTS / "aiter_ops_stand_in.py").read_text(encoding="utf-8"))
    of_wheel = {call: KEPT["required"][call] for call in CALLS if call != DECODE}
    assert {call: own[call.split(":")[1]] for call in of_wheel} == of_wheel


@pytest.mark.parametrize("lowering", AITER_OPS, ids=lambda lowering: lowering.name)
def test_each_asks_for_its_own_call_and_is_taken_by_name_only(
    lowering: Lowering, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lowering.by_name
    (call,) = calls_of(lowering.name)
    module = import_module(call.function.split(":")[0])
    asked: list[tuple[str, ...]] = []

    def note(*calls: str) -> None:
        asked.append(calls)

    monkeypatch.setattr(module, "require_calls", note)
    module.require_library()
    ((name,),) = asked
    assert name in CALLS
    assert call.capturable


def test_a_module_that_does_not_load_is_refused_with_the_remedy() -> None:
    with pytest.raises(aiter_library.MissingPackage, match=r"does not load beside torch .*aiter\*"):
        aiter_library.scales_in_blocks()


@pytest.mark.parametrize("error", [AttributeError("no op"), SystemExit("no GPU")])
def test_whatever_its_import_raises_is_why_it_is_not_there(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(_: str) -> object:
        raise error

    monkeypatch.setattr(aiter_library, "import_module", raising)
    said = f"does not load beside torch .*{with_causes(error)}"
    with pytest.raises(aiter_library.MissingPackage, match=said):
        aiter_library.scales_in_blocks()


def values_of(name: str, target: str) -> tuple[dict[str, Value], dict[tuple[str, str], Const]]:
    """At V3.2's sizes, two rows."""
    fp8 = FNUZ if target == "rocm-gfx942" else FN
    rows = {"positions": Value((2,), "i32")}
    if name == "aiter_route":
        values = rows | {
            "logits": Value((2, 256), "f32"), "bias": Value((256,), "f32"),
            "op.ids": Value((2, 8), "i32"), "op.weights": Value((2, 8), "f32"),
        }  # fmt: skip
        consts = {"n_group": 8, "topk_group": 4, "normalise": True, "scale": 2.5, "top_k": 8}
        return values, {("op", k): v for k, v in consts.items()}
    if name == "aiter_norm":
        values = {
            "x": Value((2, 7168), "bf16"), "weight": Value((7168,), "bf16"),
            "normed": Value((2, 7168), "f32"),
            "quantised": Value((2, 7168), fp8, scale=FP8_ROW_BLOCKS),
            "quantised:scale": Value((2, 56), "f32"),
        }  # fmt: skip
        return values, {("normed", "eps"): 1e-6, ("quantised", "scale_fmt"): "fp32"}
    if name == "aiter_logits":
        layout = "index_row_fnuz" if fp8 == FNUZ else "index_row"
        values = rows | {
            "q": Value((2, 64, 128), fp8, scale=FP8_ROW_BLOCKS),
            "q:scale": Value((2, 64, 1), "f32"), "weights": Value((2, 64), "f32"),
            "cache_in": Value((9, 64, 132), "u8", parts=(128,), layout=layout),
            "requests": Value((2,), "i64"), "q_starts": Value((3,), "i32"),
            "page_table": Value((2, 4), "i32"), "op.out": Value((2, 256), "f32"),
        }  # fmt: skip
        return values, {("op", "scale"): 0.1}
    values = {
        "x": Value((2, 7168), fp8, scale=FP8_ROW_BLOCKS), "x:scale": Value((2, 56), "f32"),
        "ids": Value((2, 8), "i32"), "weights": Value((2, 8), "f32"),
        "gate": Value((8, 2048, 7168), fp8, scale=FP8_BLOCKS),
        "gate:scale": Value((8, 16, 56), "f32"),
        "up": Value((8, 2048, 7168), fp8, scale=FP8_BLOCKS),
        "down": Value((8, 7168, 2048), fp8, scale=FP8_BLOCKS),
        "down:scale": Value((8, 56, 16), "f32"), "op.out": Value((2, 7168), "bf16"),
    }  # fmt: skip
    return values, {("op", "hidden_fmt"): "fp32"}


def calls_of(
    name: str,
    target: str = "rocm-gfx942",
    values: Mapping[str, Value] | None = None,
    consts: Mapping[tuple[str, str], Const] | None = None,
) -> tuple[HostCall, ...]:
    """What it emits, all of it host calls; ValueError with the refusal."""
    own_values, own_consts = values_of(name, target)
    match = PlainMatch(
        find_target(target)[1], Bucket(2, 2, 4, 2), own_values | dict(values or {}),
        own_consts | dict(consts or {}), None, Path(),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    launches = match.emit(BY_NAME[name])
    return tuple(launch for launch in launches if isinstance(launch, HostCall))


def _shaped(name: str, value: str, **changed: Any) -> dict[str, Value]:
    return {value: replace(values_of(name, "rocm-gfx942")[0][value], **changed)}


@pytest.mark.parametrize(
    ("name", "values", "consts", "said"),
    [
        ("aiter_route", {}, {("op", "normalise"): False}, "weights are always normalised"),
        ("aiter_route", _shaped("aiter_route", "bias", dtype="bf16"), {}, "dtype of bias is bf16"),
        ("aiter_route", {}, {("op", "n_group"): 16}, "16 groups of experts, wants 1, 2, 4 or 8"),
        (
            "aiter_moe",
            _shaped("aiter_moe", "gate", shape=(8, 384, 7168)),
            {},
            "axis 1 of gate is 384, wants a multiple of 256",
        ),
        (
            "aiter_logits",
            _shaped("aiter_logits", "op.out", shape=(2, 4 * 40)),
            {},
            "axis 1 of op.out is 160, wants a multiple of 64",
        ),
        ("aiter_norm", {}, {("quantised", "scale_fmt"): "ue8m0"}, "scale_fmt is ue8m0, AITER's"),
        (
            "aiter_norm",
            _shaped("aiter_norm", "normed", dtype="bf16"),
            {},
            "dtype of normed is bf16",
        ),
        ("aiter_norm", _shaped("aiter_norm", "quantised", dtype=FN), {}, "fp8_encoding"),
        ("aiter_moe", {}, {("op", "hidden_fmt"): "ue8m0"}, "hidden_fmt is ue8m0, AITER's"),
        (
            "aiter_moe",
            _shaped("aiter_moe", "x", dtype="bf16", scale=None),
            {},
            "dtype of x is bf16",
        ),
        ("aiter_moe", _shaped("aiter_moe", "gate", dtype=FN), {}, "dtype of gate is f8E4M3FN"),
        (
            "aiter_logits",
            _shaped("aiter_logits", "cache_in", shape=(9, 64 * 132), layout="index_paged_fnuz"),
            {},
            "layout of cache_in is index_paged_fnuz, wants index_row_fnuz",
        ),
        (
            "aiter_logits",
            _shaped("aiter_logits", "q", shape=(2, 8, 128)),
            {},
            "8 heads of 128, wants tiles of 16 of 128",
        ),
    ],
)
def test_what_means_something_else_there_is_refused(
    name: str,
    values: Mapping[str, Value],
    consts: Mapping[tuple[str, str], Const],
    said: str,
) -> None:
    with pytest.raises(ValueError, match=said):
        calls_of(name, values=values, consts=consts)


@pytest.mark.parametrize("name", BY_NAME)
def test_other_vendors_have_none_of_them(name: str) -> None:
    values, consts = values_of(name, "rocm-gfx950")
    with pytest.raises(ValueError, match="matrix_units"):
        calls_of(name, "cuda-sm90a", values, consts)
