"""Runs in torch_npu's environment, over stand-ins of CANN: what its schemas and shapes say.

`schemas`: prints those of the operators that are called, as the snapshot keeps them.
`calls ARTIFACT`: each host call of an artifact's programs over fake tensors of the device `npu`;
prints the operators that were called, a JSON object of each one's result types.
`twins`: each operator's CPU twin beside its fake, on the samples of `samples.py`; prints what
differs in number, shape or dtype of results.
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
from lostwax.backends.ascend.kernels.installed import installed_schema
from lostwax.backends.ascend.twins.register import register
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.backends.runtime.tensors import TORCH_DTYPES
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


def schemas() -> None:
    found = {name: installed_schema(name) or "" for name in RULES}
    version = str(torch_npu.__version__).split("+")[0]
    sys.stdout.buffer.write(snapshot_text(Snapshot(version, found)))


def fake_of(view: View) -> torch.Tensor:
    """A tensor of the device that is not there, strided as the view."""
    shape = tuple(PAGES if size == -1 else size for size in view.shape)
    kind = TORCH_DTYPES[view.dtype]
    return torch.empty_strided(shape, view.strides, dtype=kind, device="npu")


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


def calls(artifact: Path) -> None:
    count, called = 0, Called()
    for call in host_calls(artifact):
        with FakeTensorMode(), torch.inference_mode(), called:
            bind_host_call(call, fake_of, PACKAGES)()
        count += 1
    print(json.dumps({"calls": count, "operators": called.results}))


def twins() -> None:
    register()
    differing: dict[str, list[str]] = {}
    for name, arguments in SAMPLES().items():
        operator = getattr(torch.ops.npu, name)
        want = described(operator(**arguments))
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = {
                n: [mode.from_tensor(t) for t in v] if isinstance(v, list)
                and v and isinstance(v[0], torch.Tensor)
                else mode.from_tensor(v) if isinstance(v, torch.Tensor)
                else v
                for n, v in arguments.items()
            }  # fmt: skip
            found = described(operator(**fakes))
        if want != found:
            differing[name] = [want, found]
    print(json.dumps(differing))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["schemas"]:
            schemas()
        case ["calls", artifact]:
            calls(Path(artifact))
        case ["twins"]:
            twins()
        case _:
            raise SystemExit(__doc__)
