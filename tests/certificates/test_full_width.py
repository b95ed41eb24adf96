"""At V3.2's own widths every choice has a probe, which runs, and wrong blocks are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from host_places import tensor_at
from native_kernels import driver_of

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.backends.runtime.run_probe import WrongKernel, run_probe
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.probe import Probe
from lostwax.ir.contract.program import HostCall

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "examples" / "deepseek-v3.2.json"
TWO = {
    "num_hidden_layers": 2, "first_k_dense_replace": 1, "n_routed_experts": 16,
    "num_experts_per_tok": 8, "vocab_size": 16160, "num_nextn_predict_layers": 0,
}  # fmt: skip
"""A dense layer and one of experts; of these as many as memory allows."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captured = capture(parse_config(json.loads(CONFIG.read_text()) | TWO))
    out = tmp_path_factory.mktemp("wide") / "art"
    options = CompileOptions(sizes=Sizes(max_context=4096, max_tokens=512, max_reqs=4))
    compile_module(captured.module, captured.facts, captured.weights, "cpu", out, options)
    return out


def _probes(artifact: Path) -> tuple[Probe, ...]:
    return ArtifactReader(artifact).probes().probes


def _driver(artifact: Path) -> CpuDriver:
    return driver_of(artifact)


def test_every_choice_has_a_probe_and_all_are_small(artifact: Path) -> None:
    probes = {p.id: p for p in _probes(artifact)}
    assert [p.refusal for p in probes.values() if p.refusal] == []
    choices = ArtifactReader(artifact).structure("choices.json", Choices)
    named = {c.probe for regions in choices.programs.values() for c in regions}
    assert named == set(probes)
    assert (artifact / "probes.json").stat().st_size < 5 << 20


def test_every_probe_runs(artifact: Path) -> None:
    driver = _driver(artifact)
    for probe in _probes(artifact):
        assert run_probe(probe, driver).state == "executed"


def _zero(columns: slice) -> Callable[[torch.Tensor], None]:
    def spoil(out: torch.Tensor) -> None:
        out[..., columns] = 0

    return spoil


FAULTS: dict[str, tuple[str, Callable[[torch.Tensor], None]]] = {
    "a tile of a product": ("quant.linear", _zero(slice(3200, 3328))),
    "the last column of a product": ("quant.linear", _zero(slice(-1, None))),
    "the first column of every tile": ("quant.linear", _zero(slice(0, None, 128))),
    "all behind a column of the experts": ("moe.experts", _zero(slice(7000, None))),
    "half of a head": ("mla.attend", _zero(slice(-64, None))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_block_is_named(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    op, spoil = FAULTS[fault]
    probe = next(
        p for p in _probes(artifact) if p.ops[-1] == op and p.expected[0].view.shape[-1] >= 7168
    )
    out = probe.expected[0].view

    good = CpuDriver.bind

    def bind(self: CpuDriver, launch: HostCall, resolve: Resolve) -> Thunk:
        bound = good(self, launch, resolve)

        def run() -> None:
            bound()
            spoil(tensor_at(resolve(msgspec.structs.replace(out))))

        return run

    monkeypatch.setattr(CpuDriver, "bind", bind)
    with pytest.raises(WrongKernel, match=f"{op} is wrong on this device"):
        run_probe(probe, _driver(artifact))
