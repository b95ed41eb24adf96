"""Files of weights as numpy reads them, with every element type; what is none is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lostwax.backends.runtime.mapped_tensors import DTYPES, MappedTensors
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.ir.contract.foreign_file import BadFile
from lostwax.ir.reference.dtype import NUMPY_DTYPES


def test_every_element_type_comes_with_its_bits(tmp_path: Path) -> None:
    made = {
        name: (torch.arange(24) * 5).to(torch.uint8).view(TORCH_DTYPES[name])
        for name in TORCH_DTYPES
    }
    save_file(made, tmp_path / "x.safetensors")
    found = MappedTensors(tmp_path / "x.safetensors")
    assert set(DTYPES.values()) == set(made)
    for name, tensor in made.items():
        array = found.get_tensor(name)
        assert (array.dtype, array.shape) == (NUMPY_DTYPES[name], tuple(tensor.shape))
        assert array.tobytes() == tensor.view(torch.uint8).numpy().tobytes()
        assert not array.flags.writeable


def _file(folder: Path, entry: dict[str, object], data: bytes, cut: int = 0) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry})
    whole = len(header).to_bytes(8, "little") + header.encode() + data
    (folder / "w.safetensors").write_bytes(whole[: len(whole) - cut])
    return folder / "w.safetensors"


def test_a_tensor_that_begins_between_two_numbers_is_read(tmp_path: Path) -> None:
    numbers = np.array([1.5, -2.0], np.float32)
    for odd in range(4):
        data = bytes(odd) + numbers.tobytes()
        path = _file(tmp_path, {"data_offsets": [odd, odd + 8]}, data)
        assert MappedTensors(path).get_tensor("w").tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("entry", "cut", "said"),
    [
        ({"data_offsets": [0, 7]}, 0, "cut short or damaged"),
        ({"data_offsets": [8, 16]}, 0, "cut short or damaged"),
        ({"data_offsets": [-8, 0]}, 0, "cut short or damaged"),
        ({"shape": [-1, -2]}, 0, "cut short or damaged"),
        ({"shape": [1 << 62, 4]}, 0, "cut short or damaged"),
        ({"dtype": "C64"}, 0, "its element type C64 is none that weights have"),
        ({}, 1, "cut short or damaged"),
        ({"shape": "many"}, 0, "is damaged"),
    ],
)
def test_a_damaged_entry_is_refused(
    tmp_path: Path, entry: dict[str, object], cut: int, said: str
) -> None:
    with pytest.raises(BadFile, match=said):
        MappedTensors(_file(tmp_path, entry, bytes(8), cut)).get_tensor("w")


@pytest.mark.parametrize("content", [b"", b"\1", b"\xff" * 40, (100).to_bytes(8, "little") + b"{}"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(BadFile):
        MappedTensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["v", "__metadata__"])
def test_a_tensor_that_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadFile, match="holds no such tensor"):
        MappedTensors(_file(tmp_path, {}, bytes(8))).get_tensor(name)
