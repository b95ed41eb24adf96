"""A checkpoint folder is opened whole, or refused with the tensor's name and a remedy."""

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import MTP, ODD, PLAIN, WIDE, Config, write_config

from lostwax.frontend.checkpoint import INDEX_FILE, CheckpointError, open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, StoredFormat

SMALL = ODD | {"num_hidden_layers": 2}


def make(folder: Path, config: Config, **options: Any):
    source = write_config(folder / "source", config)
    options = {"seed": 0, "format": "fp32"} | options
    new_checkpoint(source, folder / "checkpoint", **options)
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def fp8_folder(tmp_path_factory: pytest.TempPathFactory):
    return make(tmp_path_factory.mktemp("fp8"), SMALL, format="fp8")


@pytest.fixture
def folder(fp8_folder: Path, tmp_path: Path):
    return shutil.copytree(fp8_folder, tmp_path / "copy")


def the_shard(folder: Path):
    return next(folder.glob("*.safetensors"))


def read_raw(path: Path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_raw(path: Path, header: Any, data: bytes):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def rename(folder: Path, old: str, new: str | None):
    """Rename a tensor in shard and index, or drop it from both with new None."""
    shard, index = the_shard(folder), folder / INDEX_FILE
    header, data = read_raw(shard)
    entry = header.pop(old)
    table = json.loads(index.read_text())
    file = table["weight_map"].pop(old)
    if new is not None:
        header[new] = entry
        table["weight_map"][new] = file
    write_raw(shard, header, data)
    index.write_text(json.dumps(table))


def reshape(folder: Path, name: str, shape: list[int]):
    shard = the_shard(folder)
    header, data = read_raw(shard)
    header[name]["shape"] = shape
    write_raw(shard, header, data)


def refused(folder: Path, *parts: str):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    for part in parts:
        assert part in str(caught.value)


def test_every_weight_has_its_sources_in_stacking_order(fp8_folder: Path):
    checkpoint = open_checkpoint(fp8_folder)
    stacked = checkpoint.weights["model.layers.1.mlp.experts.down_proj.weight"]
    names = [s.tensor for s in stacked]
    assert names == [f"model.layers.1.mlp.experts.{e}.down_proj.weight" for e in range(6)]
    assert all(s.scale and s.scale.tensor == s.tensor + "_scale_inv" for s in stacked)
    assert checkpoint.formats["model.layers.1.mlp.experts.down_proj.weight"] == StoredFormat(
        dtype="f8E4M3FN", scale=FP8_BLOCKS, stacked=True
    )
    assert checkpoint.formats["model.norm.weight"] == StoredFormat(dtype="bf16")
    assert checkpoint.formats["model.layers.1.mlp.gate.e_score_correction_bias"] == StoredFormat(
        dtype="f32"
    )


def test_576_rows_have_five_rows_of_scales(tmp_path: Path):
    checkpoint = open_checkpoint(make(tmp_path, WIDE, format="fp8"))
    (source,) = checkpoint.weights["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"]
    assert source.scale is not None
    header, _ = read_raw(checkpoint.folder / source.file)
    assert header[source.scale.tensor]["shape"] == [5, 5] == list(source.scale.shape)


def test_a_single_file_without_index_is_read(tmp_path: Path):
    sharded = make(tmp_path, SMALL)
    index = sharded / INDEX_FILE
    (file,) = set(json.loads(index.read_text())["weight_map"].values())
    (sharded / file).rename(sharded / "model.safetensors")
    index.unlink()
    assert open_checkpoint(sharded).weights["lm_head.weight"][0].file == "model.safetensors"


def test_mtp_tensors_are_recognised_and_may_be_absent(tmp_path: Path):
    checkpoint = open_checkpoint(make(tmp_path, MTP, format="fp8"))
    assert "model.layers.3.eh_proj.weight" in checkpoint.mtp_tensors
    assert "model.layers.3.self_attn.indexer.wk.weight_scale_inv" in checkpoint.mtp_tensors
    assert checkpoint.has_mtp
    assert "model.layers.3.eh_proj.weight" in checkpoint.weights
    copies = ("embed_tokens.weight", "shared_head.head.weight")
    assert not any(f"model.layers.3.{name}" in checkpoint.weights for name in copies)
    without = make(tmp_path / "without", {**MTP, "num_nextn_predict_layers": 0})
    write_config(without, {**MTP, "num_nextn_predict_layers": 1})
    assert open_checkpoint(without).mtp_tensors == ()
    assert not open_checkpoint(without).has_mtp


def test_the_mtp_layers_copies_of_embedding_and_head_may_be_absent(tmp_path: Path):
    folder = make(tmp_path, MTP)
    full = open_checkpoint(folder)
    copies = {f"model.layers.3.{n}.weight" for n in ("embed_tokens", "shared_head.head")}
    for file in folder.glob("*.safetensors"):
        save_file({k: v for k, v in load_file(file).items() if k not in copies}, file)
    table = json.loads((folder / INDEX_FILE).read_text())
    for name in copies:
        del table["weight_map"][name]
    (folder / INDEX_FILE).write_text(json.dumps(table))
    without = open_checkpoint(folder)
    assert without.has_mtp
    assert without.weights == full.weights


def test_the_digest_does_not_depend_on_the_folder_but_on_the_content(
    fp8_folder: Path, folder: Path, tmp_path: Path
):
    assert open_checkpoint(fp8_folder).digest == open_checkpoint(folder).digest
    assert open_checkpoint(fp8_folder).digest != open_checkpoint(make(tmp_path, SMALL)).digest


def test_a_missing_tensor_is_named(folder: Path):
    name = "model.layers.0.self_attn.indexer.k_norm.bias"
    rename(folder, name, None)
    refused(folder, name, "missing", "download")


def test_an_extra_tensor_is_named(folder: Path):
    name = "model.layers.1.mlp.experts.5.up_proj.weight"
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": 1}))
    refused(folder, "does not ask for", "model.layers.1.", "num_hidden_layers")
    path.write_text(json.dumps(config))
    rename(folder, name, name.replace(".5.", ".6."))
    refused(folder, name, "missing")


def test_a_wrong_shape_is_named(folder: Path):
    reshape(folder, "model.layers.0.self_attn.kv_a_proj_with_mqa.weight", [116, 60])
    refused(folder, "kv_a_proj_with_mqa", "[116, 60]", "[60, 116]")


def test_wrong_and_missing_scales_are_named(folder: Path):
    name = "model.layers.0.mlp.gate_proj.weight_scale_inv"
    reshape(folder, name, [1])
    refused(folder, name, "wants f32 or f8E8M0FNU [1, 1]")
    rename(folder, name, None)
    refused(folder, name, "missing")


def test_scales_beside_a_plain_weight_are_refused(folder: Path):
    old = "model.layers.0.mlp.gate_proj.weight_scale_inv"
    rename(folder, old, "model.layers.0.self_attn.indexer.weights_proj.weight_scale_inv")
    refused(folder, "weight_scale_inv")


def test_fp8_where_the_architecture_has_none_is_refused(tmp_path: Path):
    folder = make(tmp_path, SMALL, format="fp8")
    shard = the_shard(folder)
    header, data = read_raw(shard)
    weight = header["model.norm.weight"]
    weight["dtype"] = "F8_E4M3"
    weight["data_offsets"][1] -= weight["shape"][0]
    write_raw(shard, header, data)
    refused(folder, "model.norm.weight", "stored as f8E4M3FN", "wants bf16 or f32")


def test_half_precision_is_refused_with_the_formats_that_are_read(folder: Path):
    shard = the_shard(folder)
    header, data = read_raw(shard)
    header["lm_head.weight"]["dtype"] = "F16"
    write_raw(shard, header, data)
    refused(folder, "lm_head.weight", "stored as f16", "bf16 or f32")


def test_experts_of_one_layer_must_be_stored_alike(folder: Path):
    shard = the_shard(folder)
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    rename(folder, name, None)
    rename(folder, name + "_scale_inv", None)
    extra = {name: np.zeros((44, 116), ml_dtypes.bfloat16)}
    save_file(extra, folder / "extra.safetensors")
    index = folder / INDEX_FILE
    table = json.loads(index.read_text())
    table["weight_map"][name] = "extra.safetensors"
    index.write_text(json.dumps(table))
    refused(folder, name, "stored alike")
    assert shard.exists()


def test_a_shard_that_is_cut_short_is_refused(folder: Path):
    shard = the_shard(folder)
    whole = shard.read_bytes()
    for length in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        shard.write_bytes(whole[:length])
        refused(folder, str(shard), "cut short")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b'{"a": 1}',
        b'{"a": {}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_malformed_header_is_refused_with_the_file(tmp_path: Path, header: Any):
    write_config(tmp_path, PLAIN)
    write_raw(tmp_path / "model.safetensors", header, b"\0" * 8)
    refused(tmp_path, "model.safetensors")


def test_overlapping_tensors_are_refused(tmp_path: Path):
    write_config(tmp_path, PLAIN)
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    write_raw(tmp_path / "model.safetensors", {"a": entry, "b": entry}, b"\0" * 8)
    refused(tmp_path, "overlap")


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "", 3, "a/b"])
def test_an_index_reaches_no_file_outside_its_folder(folder: Path, name: Any):
    index = folder / INDEX_FILE
    table = json.loads(index.read_text())
    table["weight_map"]["lm_head.weight"] = name
    index.write_text(json.dumps(table))
    refused(folder, "lm_head.weight", "plain file name")


def test_an_index_that_lies_is_refused(folder: Path):
    index = folder / INDEX_FILE
    table = json.loads(index.read_text())
    table["weight_map"]["ghost.weight"] = the_shard(folder).name
    index.write_text(json.dumps(table))
    refused(folder, "ghost.weight", "does not")
    table["weight_map"]["ghost.weight"] = "absent.safetensors"
    index.write_text(json.dumps(table))
    refused(folder, "absent.safetensors", "not in")
    index.write_text("[]")
    refused(folder, "weight_map")


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    write_config(tmp_path, PLAIN)
    refused(tmp_path, "neither")
    refused(tmp_path / "absent", "no folder")
