"""What launches hand to the driver library, as it lies in memory: a stand-in takes it down.

No device, and nothing runs: the bytes, addresses and attributes at each call are looked at.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from lostwax.backends.cuda.libcuda import CudaError, LibCuda
from lostwax.backends.plan.views import dense
from lostwax.backends.rocm.libhip import HipError, LibHip
from lostwax.backends.runtime.gpu_driver import GpuDriver
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.parameter import (
    Blob,
    Null,
    Parameter,
    Pointer,
    Relocation,
    Scalar,
    TensorMap,
)
from lostwax.ir.contract.program import KernelLaunch
from lostwax.ir.contract.view import View

MAP = bytes(range(128))
"""What the stand-in encodes."""


@dataclass
class Library:
    """Stands where libcuda does: keeps what it is called with, as bytes read at the call."""

    sizes: tuple[int, ...]
    code: int = 0
    maps: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    launches: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def cuTensorMapEncodeTiled(self, out: Any, *given: Any) -> int:
        place = ctypes.cast(out, ctypes.c_void_p).value
        assert place is not None
        dtype, rank, address, extents, strides, box, steps, *modes = given
        self.maps.append(
            {
                "at": place,
                "dtype": dtype.value,
                "rank": rank.value,
                "address": address.value,
                "extents": list(extents),
                "strides": list(strides)[: rank.value - 1],
                "box": list(box),
                "steps": list(steps),
                "modes": [mode.value for mode in modes],
            }
        )
        ctypes.memmove(place, MAP, len(MAP))
        return self.code

    def cuLaunchKernelEx(self, config: Any, kernel: Any, addresses: Any, extra: Any) -> int:
        given = config._obj
        attributes = [given.attributes[i] for i in range(given.num_attributes)]
        places = [addresses[i] for i in range(len(self.sizes))]
        self.launches.append(
            {
                "grid": list(given.grid),
                "attributes": {a.id: list(a.value)[:3] for a in attributes},
                "places": places,
                "bytes": [
                    ctypes.string_at(at, n) for at, n in zip(places, self.sizes, strict=True)
                ],
            }
        )
        return 0

    def cuGetErrorName(self, code: int, name: Any) -> int:
        return 0


@dataclass
class Bench:
    """A GPU driver over host memory and the stand-in."""

    library: Library
    driver: GpuDriver
    memory: torch.Tensor

    def resolve(self, view: View) -> torch.Tensor:
        return tensor_of(self.memory, view)

    def launch(self, *params: Parameter, **attributes: Any) -> dict[str, Any]:
        """What the library is called with."""
        made = KernelLaunch(
            binary="k", symbol="f", grid=(4, 2, 1), block=(32, 1, 1), params=params, **attributes
        )
        # As it comes out of an artifact.
        read = msgspec.json.decode(canonical(made), type=KernelLaunch)
        assert read == made
        self.driver.bind(read, self.resolve)()
        return self.library.launches[-1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(*sizes: int) -> Bench:
        cuda, driver = LibCuda.__new__(LibCuda), GpuDriver.__new__(GpuDriver)
        library = Library(sizes)
        cuda._lib = library  # pyright: ignore  # without a device
        cuda._permitted = {}  # pyright: ignore[reportPrivateUsage]
        driver._library = cuda  # pyright: ignore
        driver._loaded = {("k", "f"): ctypes.c_void_p(7)}  # pyright: ignore
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
        whole = torch.zeros(8192, dtype=torch.uint8)
        start = -whole.data_ptr() % 256
        return Bench(library, driver, whole[start : start + 4096])

    return made


def at(offset: int, dtype: str = "f32", shape: tuple[int, ...] = (4,)) -> View:
    return dense("arena", "", dtype, shape, offset)


def test_a_blob_gets_the_addresses_of_its_views_and_keeps_its_other_bytes(bench: Any) -> None:
    here: Bench = bench(32, 8, 4, 8)
    data = b"\x11" * 8 + bytes(8) + b"\x22" * 8 + bytes(8)
    relocations = (Relocation(8, at(512)), Relocation(24, at(256), 12))
    seen = here.launch(
        Blob(data=data, relocations=relocations), Pointer(at(1024)), Scalar("i32", -2), Null()
    )
    base = here.memory.data_ptr()
    first, second = (n.to_bytes(8, "little") for n in (base + 512, base + 256 + 12))
    assert seen["bytes"][0] == b"\x11" * 8 + first + b"\x22" * 8 + second
    assert seen["bytes"][1] == (base + 1024).to_bytes(8, "little")
    assert seen["bytes"][2:] == [(-2).to_bytes(4, "little", signed=True), bytes(8)]
    assert here.library.launches == [seen], "once a call, and patched once"


def test_a_tensor_map_is_encoded_from_its_view_and_passed_by_value(bench: Any) -> None:
    here: Bench = bench(8, 128)
    view = View(
        space="arena", name="", dtype="bf16", shape=(3, 5, 64), strides=(512, 64, 1), offset=128
    )
    given = TensorMap(
        view=view, box=(1, 4, 32), swizzle="64B", l2_promotion="256B", fill="nan"
    )  # fmt: skip
    seen = here.launch(Null(), given)
    (asked,) = here.library.maps
    assert asked["at"] % 64 == 0
    assert seen["places"][1] % 64 == 0
    assert seen["bytes"][1] == MAP
    assert asked["address"] == here.memory.data_ptr() + 128
    assert (asked["dtype"], asked["rank"]) == (9, 3)
    assert asked["extents"] == [64, 5, 3]
    assert asked["strides"] == [128, 1024]
    assert (asked["box"], asked["steps"]) == ([32, 4, 1], [1, 1, 1])
    assert asked["modes"] == [0, 2, 3, 1]  # interleave, swizzle, promotion, fill


def test_a_map_over_open_pages_has_as_many_as_there_are(bench: Any) -> None:
    here: Bench = bench(128)
    pages = View(space="plane", name="latent", dtype="u8", shape=(-1, 4, 64), strides=(256, 64, 1))
    here.launch(TensorMap(view=pages, box=(1, 4, 64)))
    assert here.library.maps[0]["extents"] == [64, 4, 16]


def test_what_the_driver_cannot_encode_is_an_error_with_the_call(bench: Any) -> None:
    here: Bench = bench(128)
    here.library.code = 1
    with pytest.raises(CudaError, match=r"cuTensorMapEncodeTiled failed.*\(1\)"):
        here.launch(TensorMap(view=at(0, shape=(4, 4)), box=(4, 4)))
    with pytest.raises(CudaError, match="no multiple of 16; recompile"):
        here.launch(TensorMap(view=at(8, shape=(4, 4)), box=(4, 4)))


@pytest.mark.parametrize(
    ("asked", "attributes"),
    [
        ({}, {}),
        ({"cluster": (2, 2, 1)}, {4: [2, 2, 1]}),
        ({"programmatic": True}, {6: [1, 0, 0]}),
        ({"cooperative": True}, {2: [1, 0, 0]}),
        (
            {"cluster": (4, 1, 1), "programmatic": True, "cooperative": True},
            {4: [4, 1, 1], 6: [1, 0, 0], 2: [1, 0, 0]},
        ),
    ],
    ids=["none", "cluster", "programmatic", "cooperative", "all"],
)
def test_attributes_are_packed_by_their_number(
    bench: Any, asked: dict[str, Any], attributes: dict[int, list[int]]
) -> None:
    here: Bench = bench()
    seen = here.launch(**asked)
    assert seen["attributes"] == attributes
    assert seen["grid"] == [4, 2, 1]


@pytest.mark.parametrize(
    "asked", [{"cluster": (2, 1, 1)}, {"programmatic": True}, {"cooperative": True}], ids=str
)
def test_hip_refuses_what_it_lacks(asked: dict[str, Any]) -> None:
    hip = LibHip.__new__(LibHip)  # without a device
    launch = KernelLaunch(
        binary="k", symbol="f", grid=(2, 1, 1), block=(1, 1, 1), params=(), op="x", **asked
    )
    with pytest.raises(HipError, match=r"x: its launch is .*, which this target lacks"):
        hip.pack(ctypes.c_void_p(), launch, PackedParameters([]))
    hip.pack(ctypes.c_void_p(), msgspec.structs.replace(launch, **DEFAULTS), PackedParameters([]))
    with pytest.raises(HipError, match="tensor map, which this target lacks"):
        hip.encode_tensor_map(TensorMap(view=at(0), box=(4,)), 0, (4,))


DEFAULTS: dict[str, Any] = {"cluster": (1, 1, 1), "programmatic": False, "cooperative": False}
