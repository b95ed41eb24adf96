"""Every way in which a kernel of this architecture goes wrong is named, by probe and certificate.

The faults are put between the launches and the CPU's driver, so that they meet whichever lowering
was chosen for the op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import torch
from host_places import tensor_at
from native_kernels import driver_of, torch_alone
from tiny import PLAIN, write_config

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.formats import Formats
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.proof.certify import certify_artifact
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.boot_check import check_boot
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.backends.runtime.run_probe import WrongKernel, run_probe
from lostwax.ir.contract.probe import PROBES, Probe, Probes
from lostwax.ir.contract.program import HostCall

Tensors = list[torch.Tensor | None]
PACKAGES = ("lostwax.backends.portable.kernels", "lostwax.backends.cpu.kernels")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP8 weights, FP8 cache and FP8 indexer: every format that can be got wrong."""
    from lostwax.frontend.capture import capture
    from lostwax.frontend.checkpoint import open_checkpoint
    from lostwax.frontend.new_checkpoint import new_checkpoint

    folder = tmp_path_factory.mktemp("faults")
    new_checkpoint(write_config(folder, PLAIN), folder / "ckpt", seed=0, format="fp8")
    captured = capture(open_checkpoint(folder / "ckpt"))
    options = CompileOptions(
        dtype="bf16",
        sizes=Sizes(max_context=256, max_tokens=64, max_reqs=2),
        formats=Formats(kv="fp8_656", indexer="fp8_ue8m0"),
    )
    out = folder / "art"
    with torch_alone():
        compile_module(captured.module, captured.facts, captured.weights, "cpu", out, options)
    return out


def _interleaved(call: HostCall, tensors: Tensors) -> HostCall:
    """Pairs (0, 1), (2, 3), … where halves are meant, or the reverse."""
    if "interleaved" not in call.consts:
        return call
    consts = {**call.consts, "interleaved": not call.consts["interleaved"]}
    return msgspec.structs.replace(call, consts=consts)


def _no_hadamard(call: HostCall, tensors: Tensors) -> HostCall:
    """The rotation of queries or keys is left out: H is the identity."""
    if call.function.endswith(":hadamard"):
        x, signs = tensors[0], tensors[1]
        assert x is not None
        assert signs is not None
        signs.copy_(torch.eye(signs.shape[0]) * x.shape[-1] ** 0.5)
    return call


def _as_fnuz(call: HostCall, tensors: Tensors) -> HostCall:
    """The bytes of e4m3fn weights read as e4m3fnuz, which has another bias."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype == torch.float8_e4m3fn:
            other = tensor.contiguous().view(torch.float8_e4m3fnuz).float()
            tensor.copy_(other.nan_to_num(0.0))
    return call


def _lost_scale(call: HostCall, tensors: Tensors) -> HostCall:
    """One block of a weight is not multiplied by its scale."""
    for weight, scale in pairwise(tensors):
        is_weight = weight is not None and weight.dtype == torch.float8_e4m3fn
        if is_weight and scale is not None and scale.dtype == torch.float32:
            scale.view(-1, *scale.shape[-2:])[..., -1, -1] = 1.0
    return call


def _round_kv_scale(call: HostCall, tensors: Tensors) -> HostCall:
    """A cached row's scale becomes a power of two after the row was quantised by another."""
    if call.function.endswith(":append_scaled"):
        scales = tensors[2]
        assert scales is not None
        scales.copy_(torch.exp2(scales.log2().ceil()))
    return call


def _drop(call: HostCall, tensors: Tensors) -> None:
    """Of each row's chosen positions the last one is dropped."""
    chosen = [t for t in tensors if t is not None and t.dtype == torch.int32 and t.dim() == 2]
    if "topk" in call.function and chosen:
        out = chosen[-1]
        out.scatter_(1, ((out >= 0).sum(-1, keepdim=True) - 1).clamp_(min=0), -1)


Before = Callable[[HostCall, Tensors], HostCall]
BEFORE: dict[str, tuple[str, Before]] = {
    "indexer RoPE in the other layout": ("core.rope", _interleaved),
    "Hadamard skipped on one side": ("dsa.hadamard", _no_hadamard),
    "e4m3fn read as e4m3fnuz": ("quant.linear", _as_fnuz),
    "e4m3fn experts read as e4m3fnuz": ("moe.experts", _as_fnuz),
    "a lost block scale": ("quant.linear", _lost_scale),
    "a lost block scale of an expert": ("moe.experts", _lost_scale),
    "a rounded KV scale": ("kv.append", _round_kv_scale),
}
FAULTS = [*BEFORE, "top-k drops candidates"]


@pytest.fixture
def faulty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The CPU's driver with one fault; the op that is wrong then."""
    name: str = request.param
    op, before = BEFORE.get(name, ("dsa.topk", None))

    good = CpuDriver.bind

    def bind(self: CpuDriver, launch: HostCall, resolve: Resolve) -> Thunk:
        tensors = [None if view is None else tensor_at(resolve(view)) for view in launch.args]

        def run() -> None:
            call = launch if before is None else before(launch, tensors)
            good(self, call, resolve)()
            if before is None:
                _drop(call, tensors)

        return run

    monkeypatch.setattr(CpuDriver, "bind", bind)
    return op


def _probes(artifact: Path) -> tuple[Probe, ...]:
    return ArtifactReader(artifact).structure(PROBES, Probes).probes


def _driver(artifact: Path) -> CpuDriver:
    return driver_of(artifact)


def _wrong(artifact: Path, op: str) -> Iterator[str]:
    """What is said about each probe of an op that is found wrong."""
    for probe in _probes(artifact):
        if op in probe.ops:
            try:
                run_probe(probe, _driver(artifact))
            except WrongKernel as error:
                yield str(error)


def test_without_a_fault_every_probe_and_certificate_is_right(artifact: Path) -> None:
    report = check_boot(ArtifactReader(artifact), _driver(artifact), PACKAGES)
    assert report.unproven == ()
    assert report.ran == len(_probes(artifact)) > 30
    (artifact / "certificates.json").unlink()
    assert [c.error for c in certify_artifact(artifact) if c.error] == []


@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
def test_a_probe_names_the_op_and_its_lowering(artifact: Path, faulty: str) -> None:
    said = list(_wrong(artifact, faulty))
    assert said, f"no probe of {faulty} notices"
    assert all(faulty in line and "is wrong on this device: lowering" in line for line in said)
    with pytest.raises(WrongKernel, match="Recompile with another lowering"):
        check_boot(ArtifactReader(artifact), _driver(artifact), PACKAGES)
    assert not (artifact / "certificates.json").exists(), "what failed leaves no evidence"


@pytest.mark.slow
@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
def test_a_certificate_names_the_op(artifact: Path, faulty: str) -> None:
    wrong = [c for c in certify_artifact(artifact) if c.error]
    assert any(faulty in c.ops for c in wrong)
    assert all(c.record is None for c in wrong)
