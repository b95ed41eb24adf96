"""Runs in torch_npu's environment, over stand-ins of CANN: what its schemas and shapes say.

`OUT schemas`: writes those of the operators that are called, as the snapshot keeps them.
`OUT calls ARTIFACT`: each host call of an artifact's programs over fake tensors; writes the
operators that were called, a JSON object of each one's result types, and those that torch's would
stand in for. They say that they are the
CPU's: on `npu`, where `twins` calls operators, torch's own methods ask which device is current.
`OUT export ARTIFACT`: every call of a decode layer with experts, in order over one step's memory,
by torch.export; writes the operators of the graph in order.
`OUT twins`: each operator's CPU twin beside its fakes, on the CPU and on `npu`, for the samples of
`samples.py`; writes what differs in number, shape or dtype of results.
Standard output is torch_npu's, which warns there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch_npu  # pyright: ignore[reportMissingImports]
from samples import SAMPLES
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lostwax.backends.ascend.contract.rules import RULES
from lostwax.backends.ascend.contract.snapshot import Snapshot, snapshot_text
from lostwax.backends.ascend.kernels import rope
from lostwax.backends.ascend.kernels.operators import installed_schema, replaced
from lostwax.backends.ascend.twins.register import register
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.backends.runtime.tensors import TORCH_DTYPES, tensor_of
from lostwax.ir.contract.program import HostCall, Program, View, launches_of

PACKAGES = ("lostwax.backends.ascend.kernels", "lostwax.backends.portable.kernels")
PAGES = 9
"""Of a cache: any number will do."""


class Called(TorchDispatchMode):
    """Notes what CANN's operators gave."""

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "npu":
            self.results[func.__name__.split(".")[0]] = described(result)
        return result


def described(result: Any) -> str:
    """Dtypes and shapes of an operator's results."""
    each = [result] if isinstance(result, torch.Tensor) else list(result)
    return ", ".join(f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in each)


def schemas() -> bytes:
    found = {name: installed_schema(name) or "" for name in RULES}
    version = str(torch_npu.__version__).split("+")[0]
    return snapshot_text(Snapshot(version, found))


def fake_of(view: View) -> torch.Tensor:
    """A tensor without memory, strided as the view."""
    shape = tuple(PAGES if size == -1 else size for size in view.shape)
    kind = TORCH_DTYPES[view.dtype]
    return torch.empty_strided(shape, view.strides, dtype=kind)


def host_calls(artifact: Path) -> Iterator[HostCall]:
    """The artifact's calls of Ascend's functions; equal ones once."""
    seen: set[bytes] = set()
    for file in sorted(artifact.glob("programs/*.json")):
        for launch in launches_of(msgspec.json.decode(file.read_bytes(), type=Program)):
            if not isinstance(launch, HostCall) or not launch.function.startswith(PACKAGES[0]):
                continue
            views = [(v.shape, v.strides, v.dtype) for v in launch.args if v is not None]
            key = msgspec.json.encode([launch.function, views, launch.consts])
            if key not in seen:
                seen.add(key)
                yield launch


def calls(artifact: Path) -> bytes:
    count, called = 0, Called()
    for call in host_calls(artifact):
        with FakeTensorMode(), torch.inference_mode(), called:
            bind_host_call(call, fake_of, PACKAGES)()
        rope.tables.cache_clear()  # they are fake
        count += 1
    found = {"calls": count, "operators": called.results, "replaced": replaced(RULES)}
    return json.dumps(found).encode()


class Layer(torch.nn.Module):
    """The calls of one layer, over buffers by (space, name)."""

    def __init__(self, calls: tuple[HostCall, ...]) -> None:
        super().__init__()
        self._calls = calls

    def forward(self, buffers: dict[str, torch.Tensor]) -> torch.Tensor:
        """Run them; what they wrote lies in the arena."""

        def resolve(view: View) -> torch.Tensor:
            return tensor_of(buffers[f"{view.space} {view.name}"], view)

        for call in self._calls:
            bind_host_call(call, resolve, PACKAGES)()
        return buffers["arena "]


def export(artifact: Path) -> bytes:
    file, *_ = sorted(artifact.glob("programs/decode-*-chosen.json"))
    program = msgspec.json.decode(file.read_bytes(), type=Program)
    calls = tuple(launch for launch in program.blocks["moe"] if isinstance(launch, HostCall))
    sizes: dict[str, int] = {}
    for view in (view for call in calls for view in call.args if view is not None):
        pages = view.strides[0] * PAGES if view.shape[0] == -1 else 0
        count = pages or 1 + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
        end = view.offset + count * TORCH_DTYPES[view.dtype].itemsize
        key = f"{view.space} {view.name}"
        sizes[key] = max(sizes.get(key, 0), -(-end // 8) * 8)
    buffers = {key: torch.zeros(size, dtype=torch.uint8) for key, size in sizes.items()}
    graph = torch.export.export(Layer(calls), (buffers,), strict=False).graph
    names = [getattr(node.target, "__name__", "") for node in graph.nodes]
    return json.dumps([n.split(".")[0] for n in names if n.startswith("npu_")]).encode()


def twins() -> bytes:
    register()
    differing: dict[str, list[str]] = {}
    for name, arguments in SAMPLES().items():
        operator = getattr(torch.ops.npu, name)
        found = [described(operator(**arguments))]
        for device in ("cpu", "npu"):
            with FakeTensorMode():
                fakes = {n: faked(value, device) for n, value in arguments.items()}
                found.append(described(operator(**fakes)))
        if len(set(found)) > 1:
            differing[name] = found
    return json.dumps(differing).encode()


def faked(value: Any, device: str) -> Any:
    """Tensors, alone or in a list, without memory on a device; other arguments as they are."""
    if isinstance(value, list):
        return [faked(each, device) for each in value]
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [out, "schemas"]:
            content = schemas()
        case [out, "calls", artifact]:
            content = calls(Path(artifact))
        case [out, "export", artifact]:
            content = export(Path(artifact))
        case [out, "twins"]:
            content = twins()
        case _:
            raise SystemExit(__doc__)
    Path(out).write_bytes(content)
