"""A launch that its target could not run is refused when it is emitted and when it is read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lostwax.backends.cpu.target import CPU
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.plan.views import dense
from lostwax.backends.rocm.target import ROCM_GFX942
from lostwax.ir.contract.check_launch import check_form, check_launch
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.parameter import (
    Blob,
    Null,
    Parameter,
    Pointer,
    Relocation,
    Scalar,
    TensorMap,
    parameter_bytes,
)
from lostwax.ir.contract.program import KernelLaunch, views_of
from lostwax.ir.contract.target import Target
from lostwax.ir.contract.view import View

VIEW = dense("arena", "", "f32", (4,), 256)
TILED = dense("arena", "", "bf16", (8, 128), 256)


def launch(*params: Parameter, **changes: Any) -> KernelLaunch:
    return KernelLaunch(
        binary="k", symbol="f", grid=(4, 1, 1), block=(32, 1, 1), params=params, **changes
    )


def tiled(**changes: Any) -> TensorMap:
    given: dict[str, Any] = {"view": TILED, "box": (8, 64)}
    return TensorMap(**given | changes)


def strided(*shape_and_strides: tuple[int, int], dtype: str = "bf16", offset: int = 0) -> View:
    shape, strides = zip(*shape_and_strides, strict=True)
    return View(space="arena", name="", dtype=dtype, shape=shape, strides=strides, offset=offset)


CUBE = strided((4, 1024), (8, 128), (128, 1))


@pytest.mark.parametrize(
    "params",
    [
        (Blob(data=bytes(16), relocations=(Relocation(0, VIEW), Relocation(8, VIEW, 15))),),
        (Blob(data=b"abc", alignment=1),),
        (tiled(), tiled(swizzle="128B"), tiled(fill="nan"), tiled(box=(8, 32), swizzle="64B")),
        (tiled(view=CUBE, box=(1, 8, 64), interleave="32B", swizzle="32B"),),
        (tiled(view=msgspec.structs.replace(CUBE, shape=(-1, 8, 128)), box=(1, 8, 64)),),
    ],
    ids=["addresses", "bytes", "maps", "interleaved", "open pages"],
)
def test_what_a_target_has_passes(params: tuple[Parameter, ...]) -> None:
    check_form(launch(*params), CUDA_SM90A)


BLOBS: dict[str, tuple[Blob, str]] = {
    "unaligned": (
        Blob(data=bytes(16), relocations=(Relocation(4, VIEW),)), "not at a border of 8"
    ),
    "behind the end": (
        Blob(data=bytes(12), relocations=(Relocation(8, VIEW),)), "which has 12 bytes"
    ),
    "twice": (
        Blob(data=bytes(16), relocations=(Relocation(8, VIEW), Relocation(8, VIEW))),
        "inside another one",
    ),
    "over data": (
        Blob(data=b"x" * 16, relocations=(Relocation(8, VIEW),)), "where the blob is not zero"
    ),
    "beyond the view": (
        Blob(data=bytes(8), relocations=(Relocation(0, VIEW, 16),)), "16 bytes into a view of 16"
    ),
    "beyond a page": (
        Blob(
            data=bytes(8),
            relocations=(Relocation(0, strided((-1, 64), (64, 1), dtype="u8"), 64),),
        ),
        "64 bytes into a view of 64",
    ),
    "anywhere": (
        Blob(data=bytes(8), relocations=(Relocation(0, VIEW),), alignment=4), "align the blob"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("blob", "message"), BLOBS.values(), ids=BLOBS)
def test_addresses_that_do_not_fit_their_blob_are_refused(blob: Blob, message: str) -> None:
    with pytest.raises(Inconsistent, match=f"the launch of 'f' .*{message}"):
        check_form(launch(blob), CUDA_SM90A)


MAPS: dict[str, tuple[TensorMap, str]] = {
    "packed dtype": (tiled(view=msgspec.structs.replace(TILED, dtype="f4E2M1FN")), "dtype"),
    "rank": (
        tiled(view=dense("arena", "", "u8", (1,) * 5 + (16,)), box=(1, 1, 1, 1, 16)), "of rank 6"
    ),
    "interleaved rank": (tiled(interleave="16B"), "of rank 2, wants 3 to 5"),
    "box rank": (tiled(box=(64,)), "a box of 1 axes, its view has 2"),
    "empty": (tiled(view=dense("arena", "", "bf16", (0, 128))), "wants 1 to 4294967296"),
    "last axis": (tiled(view=strided((8, 256), (128, 2))), "whose last axis is not dense"),
    "stride": (tiled(view=strided((8, 12), (8, 1)), box=(8, 8)), r"strides of \[24\] bytes"),
    "no stride": (tiled(view=strided((8, 0), (128, 1))), r"strides of \[0\] bytes"),
    "interleaved stride": (
        tiled(view=strided((4, 64), (4, 8), (8, 1)), box=(1, 1, 8), interleave="32B"),
        "multiples of 32 below",
    ),
    "address": (tiled(view=msgspec.structs.replace(TILED, offset=8)), "at byte 8, wants mult"),
    "narrow box": (tiled(box=(8, 4)), "rows of 8 bytes in a box, wants multiples of 16"),
    "swizzled box": (tiled(swizzle="64B"), "rows of 128 bytes in a box, swizzle 64B takes 64"),
    "interleaved swizzle": (tiled(view=CUBE, box=(1, 1, 16), interleave="32B"), "swizzle of 32B"),
    "fill": (tiled(view=dense("arena", "", "u8", (8, 128)), fill="nan"), "of u8 filled with NaN"),
}  # fmt: skip


@pytest.mark.parametrize(("tensor_map", "message"), MAPS.values(), ids=MAPS)
def test_maps_that_the_driver_could_not_encode_are_refused(
    tensor_map: TensorMap, message: str
) -> None:
    with pytest.raises(Inconsistent, match=f"the launch of 'f' has a tensor map .*{message}"):
        check_form(launch(tensor_map), CUDA_SM90A)


@pytest.mark.parametrize("extent", [0, 257])
def test_a_box_has_at_most_256_elements_an_axis(extent: int) -> None:
    text = msgspec.json.encode(tiled(box=(8, extent)))
    with pytest.raises(msgspec.ValidationError, match=r"\$.box"):
        msgspec.json.decode(text, type=TensorMap)


LACKED: dict[str, tuple[KernelLaunch, str]] = {
    "cluster_blocks": (launch(cluster=(2, 1, 1)), "clusters of 2 blocks, target .* at most 1"),
    "programmatic_launch": (launch(programmatic=True), "is programmatic, which target"),
    "cooperative_launch": (launch(cooperative=True), "is cooperative, which target"),
    "tensor_maps": (launch(tiled()), "takes a tensor map, which target"),
}


@pytest.mark.parametrize("target", [ROCM_GFX942, CPU], ids=lambda t: t.name)
@pytest.mark.parametrize("fact", LACKED)
def test_what_a_target_lacks_is_refused_by_the_fact(target: Target, fact: str) -> None:
    made, message = LACKED[fact]
    with pytest.raises(Inconsistent, match=message) as error:
        check_form(made, target)
    assert target.name in str(error.value)
    assert f"its fact {fact}" in str(error.value)
    check_form(made, CUDA_SM90A)


def test_clusters_fill_their_grid_and_parameters_their_space() -> None:
    with pytest.raises(Inconsistent, match="no whole clusters"):
        check_form(launch(cluster=(3, 1, 1)), CUDA_SM90A)
    with pytest.raises(Inconsistent, match="clusters of 32 blocks"):
        check_form(launch(cluster=(4, 8, 1)), CUDA_SM90A)
    most = Blob(data=bytes(4096))
    check_form(launch(most), CUDA_SM90A)
    with pytest.raises(Inconsistent, match="4100 bytes of parameters, a kernel takes 4096"):
        check_form(launch(most, Scalar("i32", 1)), CUDA_SM90A)


def test_each_parameter_begins_at_its_border() -> None:
    params = (Scalar("i32", 1), Pointer(VIEW), Scalar("f32", 1.0), tiled(), Blob(data=b"abc"))
    assert parameter_bytes(params) == 64 + 128 + 3
    assert parameter_bytes((Scalar("i32", 1), Null())) == 16


def test_every_address_of_a_launch_is_a_view_of_it() -> None:
    """The bounds of buffers are checked over these."""
    blob = Blob(data=bytes(16), relocations=(Relocation(0, VIEW), Relocation(8, CUBE)))
    assert views_of(launch(blob, tiled(), Pointer(VIEW), Null())) == [VIEW, CUBE, TILED, VIEW]


def test_an_unknown_kernel_is_refused() -> None:
    check_launch(launch(), {"k": {"f"}}, CUDA_SM90A)
    with pytest.raises(Inconsistent, match="lists no such kernel"):
        check_launch(launch(), {"k": {"g"}}, CUDA_SM90A)


BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "shared memory": (
        {"shared_bytes": 232449}, "asks for 232449 bytes of shared memory a block, .* has 232448"
    ),
    "an axis": ({"block": (1, 1, 65)}, r"blocks of \(1, 1, 65\) threads, \(1024, 1024, 64\) at"),
    "threads": ({"block": (32, 32, 2)}, "too many threads a block"),
    "resident blocks": (
        {"grid": (4225, 1, 1), "cooperative": True}, "cooperative over 4225 blocks, .* holds 4224"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BEYOND)
def test_what_is_beyond_the_device_is_refused(what: str) -> None:
    changes, message = BEYOND[what]
    with pytest.raises(Inconsistent, match=message):
        check_form(msgspec.structs.replace(launch(), **changes), CUDA_SM90A)


def test_all_that_the_device_has_passes() -> None:
    for changes in (
        {"shared_bytes": 232448, "block": (16, 1, 64)},
        {"grid": (4224, 1, 1), "cooperative": True},
        {"grid": (1 << 30, 1, 1)},
    ):
        check_form(msgspec.structs.replace(launch(), **changes), CUDA_SM90A)
