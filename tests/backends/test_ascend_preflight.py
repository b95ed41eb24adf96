"""What a start says of another torch_npu or CANN, and what then stands in for an operator."""

from __future__ import annotations

import ast
from collections.abc import Generator, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from ascend_operators import change, forget
from ascend_twin import TWIN, TWIN_TARGET
from model_formats import LITTLE
from tiny import write_config

from lostwax.backends.ascend import kernels, preflight
from lostwax.backends.ascend.contract.entry_points import ENTRY_POINTS
from lostwax.backends.ascend.contract.rules import RULES
from lostwax.backends.ascend.contract.snapshot import read_snapshot
from lostwax.backends.ascend.contract.versions import WRITTEN_FOR
from lostwax.backends.ascend.kernels import attention, norms, operators
from lostwax.backends.ascend.kernels.composed import COMPOSED
from lostwax.backends.ascend.target import TARGETS
from lostwax.backends.ascend.twins.register import register
from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.require_packages import MissingPackage
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.artifact import Manifest

SCHEMAS = read_snapshot().schemas
NORM = "npu_rms_norm"


@pytest.fixture(autouse=True)
def npu() -> Generator[None]:
    register()
    forget()
    yield
    forget()


def manifest(toolchain: dict[str, str], target: Any = TARGETS[0], ranks: int = 1) -> Manifest:
    """As much of one as the preflight reads."""
    fields = {"toolchain": toolchain, "target": target, "world_size": ranks}
    return cast("Manifest", SimpleNamespace(**fields))


def lines(*functions: Any, toolchain: dict[str, str] | None = None, **fields: Any) -> list[str]:
    given = dict(WRITTEN_FOR) if toolchain is None else toolchain
    return list(preflight.preflight(manifest(given, **fields), functions))


def test_nothing_is_said_where_all_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "installed", lambda: dict(WRITTEN_FOR))
    assert lines(norms.rms_norm, attention.attend) == []


@pytest.mark.parametrize(
    ("recorded", "here", "said"),
    [
        ({"CANN": "9.1.0"}, {"CANN": "8.5.0"}, "compiled for CANN 9.1.0; 8.5.0 is installed."),
        ({"CANN": "9.1.0"}, {}, "compiled for CANN 9.1.0; which is installed cannot be told."),
        ({}, {"CANN": "9.1.0"}, "does not say which CANN it was compiled for; 9.1.0 is installed"),
        ({"torch_npu": "2.13.0"}, {"torch_npu": "2.10.0"}, "for torch_npu 2.13.0; 2.10.0 is"),
        ({}, {"driver": "25.5.0"}, "the NPU's driver is 25.5.0; which one CANN wants is not"),
    ],
)
def test_another_version_is_said(
    monkeypatch: pytest.MonkeyPatch, recorded: dict[str, str], here: dict[str, str], said: str
) -> None:
    monkeypatch.setattr(preflight, "installed", lambda: dict(WRITTEN_FOR) | here)
    if not here:
        monkeypatch.setattr(preflight, "installed", lambda: {"torch_npu": WRITTEN_FOR["torch_npu"]})
    toolchain = {name: v for name, v in WRITTEN_FOR.items() if name not in (*recorded, *here)}
    found = lines(toolchain=toolchain | recorded)
    assert len(found) == 1
    assert said in found[0]


def test_what_was_never_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "installed", lambda: dict(WRITTEN_FOR))
    graphs = next(target for target in TARGETS if target.replay == "graph")
    (said,) = lines(target=graphs)
    assert "as NPUGraphs, which no device has shown to work: ascend-910b calls" in said
    (said,) = lines(ranks=2)
    assert "2 ranks exchange values by HCCL, which no device has shown to work" in said


def test_an_operator_of_another_schema_is_computed_by_torch_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "installed", lambda: dict(WRITTEN_FOR))
    change(monkeypatch, {NORM: SCHEMAS[NORM].replace("gamma", "weight"), "npu_swiglu": None})
    (said,) = lines(norms.rms_norm, attention.attend)
    assert said.startswith(f"{NORM} is computed by torch's operators, slower: ")
    assert "argument gamma is gone (was Tensor); npu_rms_norm: new argument weight: Tensor" in said
    x, weight, out = torch.randn(3, 8), torch.ones(8), torch.empty(3, 8)
    norms.rms_norm(x, weight, out, eps=1e-6)
    torch.testing.assert_close(out, torch.nn.functional.rms_norm(x, (8,), weight, 1e-6))


def test_an_operator_that_nothing_can_stand_in_for_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(monkeypatch, {"npu_sparse_flash_attention": None})
    with pytest.raises(MissingPackage) as error:
        lines(attention.attend)
    said = str(error.value)
    assert said.startswith("npu_sparse_flash_attention: missing, which lostwax was not written for")
    assert "install torch_npu 2.13.0 with CANN 9.1.0, or compile with --lowering OP=port" in said
    assert lines(norms.rms_norm, toolchain={}), "others run"


def test_a_function_that_cann_lacks_is_as_an_operator_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "installed", lambda: dict(WRITTEN_FOR))

    def has(symbol: str) -> bool:
        return symbol not in ("aclnnRmsNorm", "aclnnSparseFlashAttention")

    monkeypatch.setattr(operators, "_entry_points", lambda: has)
    forget()
    (said,) = lines(norms.rms_norm, attention.attend)
    assert said.endswith("npu_rms_norm: CANN has no aclnnRmsNorm"), "the other has a newer one"


def test_every_operator_has_its_functions_and_a_twin() -> None:
    assert ENTRY_POINTS.keys() == RULES.keys() == SCHEMAS.keys()
    assert COMPOSED.keys() < RULES.keys()


def modules() -> Iterator[Any]:
    for file in sorted(Path(kernels.__file__).parent.glob("*.py")):
        if file.stem not in ("__init__", "operators", "composed"):
            yield import_module(f"{kernels.__name__}.{file.stem}")


def called(module: Any) -> dict[str, set[str]]:
    """Operators that each function of a module calls, itself or by another one of the module."""
    tree = ast.parse(Path(module.__file__).read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}

    def of(name: str) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(ast.Module(functions[name].body, [])):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "operator":
                    found.add(ast.literal_eval(node.args[0]))
                elif node.func.id in functions:
                    found |= of(node.func.id)
        return found

    return {name: of(name) for name in functions}


def test_host_functions_are_marked_with_the_operators_that_they_call() -> None:
    """Else the preflight would not look for one."""
    every: set[str] = set()
    for module in modules():
        for name, found in called(module).items():
            function = getattr(module, name)
            if not name.startswith("_"):
                assert set(operators.operators_of(function)) == found, f"{module.__name__}:{name}"
            every |= found
    assert every == RULES.keys()


def test_a_load_says_what_stands_in_and_steps_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the twins' target: which torch_npu is there cannot be told, for there is none."""
    source = write_config(tmp_path / "source", LITTLE)
    new_checkpoint(source, tmp_path / "checkpoint", seed=0, format="fp8")
    captured = capture(open_checkpoint(tmp_path / "checkpoint"))
    options = CompileOptions(
        sizes=Sizes(max_context=128, max_tokens=16, max_reqs=2), extra_backends=(TWIN,)
    )
    module, facts, weights = captured.module, captured.facts, captured.weights
    made = compile_module(module, facts, weights, TWIN_TARGET.name, tmp_path / "art", options)
    assert {name: made.toolchain[name] for name in WRITTEN_FOR} == WRITTEN_FOR
    change(monkeypatch, {NORM: None})
    load(tmp_path / "art", checkpoint=tmp_path / "checkpoint", extra_backends=(TWIN,))
    said = capsys.readouterr().err
    assert "compiled for CANN 9.1.0; which is installed cannot be told" in said
    assert f"{NORM} is computed by torch's operators, slower: {NORM}: missing" in said
    change(monkeypatch, {"npu_grouped_matmul": None})
    with pytest.raises(MissingPackage, match="npu_grouped_matmul: missing"):
        load(tmp_path / "art", checkpoint=tmp_path / "checkpoint", extra_backends=(TWIN,))
