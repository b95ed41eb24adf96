"""Tensors that nothing reads are said once; for the rest the sentence names the field at fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_tensors import Tensors, change_config, change_tensors
from tiny import MTP, ODD, Config, write_config

from lostwax.frontend.checkpoint import CheckpointError, open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint

SMALL = ODD | {"num_hidden_layers": 2}
LAYER = "model.layers.1."


def _made(folder: Path, config: Config) -> Path:
    source = write_config(folder / "source", config)
    new_checkpoint(source, folder / "checkpoint", seed=0, format="bf16")
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(tmp_path_factory.mktemp("drafting"), MTP)


@pytest.fixture
def folder(small: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small, tmp_path / "copy")


@pytest.fixture
def mtp(drafting: Path, tmp_path: Path) -> Path:
    return shutil.copytree(drafting, tmp_path / "copy")


def _refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    return str(caught.value)


def _extra(*names: str, dtype: torch.dtype = torch.float32) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors.update({name: torch.zeros(5, dtype=dtype) for name in names})

    return change


def _without(*parts: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in [n for n in tensors if any(part in n for part in parts)]:
            del tensors[name]

    return change


def test_a_checkpoint_without_extra_tensors_has_no_notice(small: Path, drafting: Path) -> None:
    assert open_checkpoint(small).notice is None
    assert open_checkpoint(drafting).notice is None


def test_mtp_tensors_that_are_switched_off_are_not_read_and_said_once(mtp: Path) -> None:
    with_drafts = open_checkpoint(mtp)
    change_config(mtp, num_nextn_predict_layers=0)
    opened = open_checkpoint(mtp)
    assert not opened.has_mtp
    assert opened.mtp_tensors == ()
    assert not any(name.startswith("model.layers.3.") for name in opened.weights)
    number = len(with_drafts.mtp_tensors)
    said = f"{number} of MTP layer 3 (num_nextn_predict_layers is 0)"
    assert opened.notice == f"tensors that are not read: {said}"


def test_stored_buffers_of_the_rotary_embedding_are_not_read(mtp: Path) -> None:
    names = [f"model.layers.{n}.self_attn.rotary_emb.inv_freq" for n in range(4)]
    change_tensors(mtp, _extra(*names, "model.rotary_emb.inv_freq", dtype=torch.int16))
    opened = open_checkpoint(mtp)
    assert opened.notice is not None
    assert "5 rotary_emb buffers" in opened.notice
    assert opened.has_mtp
    change_config(mtp, num_nextn_predict_layers=0)
    notice = open_checkpoint(mtp).notice
    assert notice is not None
    assert "of MTP layer 3" in notice
    assert "5 rotary_emb buffers" in notice
    assert "\n" not in notice


def test_a_buffer_of_a_layer_that_is_not_read_counts_once(mtp: Path) -> None:
    number = len(open_checkpoint(mtp).mtp_tensors)
    change_config(mtp, num_nextn_predict_layers=0)
    change_tensors(mtp, _extra("model.layers.3.self_attn.rotary_emb.inv_freq"))
    assert open_checkpoint(mtp).notice == (
        f"tensors that are not read: {number} of MTP layer 3 (num_nextn_predict_layers is 0),"
        " 1 rotary_emb buffers (the rope settings give their values)"
    )


EXTRA = {
    "num_hidden_layers": "model.layers.2.input_layernorm.weight",
    "n_routed_experts": f"{LAYER}mlp.experts.6.up_proj.weight",
    "first_k_dense_replace": "model.layers.0.mlp.gate.weight",
    "attention_bias": f"{LAYER}self_attn.q_a_proj.bias",
    "quantisation": f"{LAYER}self_attn.o_proj.input_scale",
    "another architecture": f"{LAYER}self_attn.sinks",
    "no field": "model.vision.weight",
}


@pytest.mark.parametrize("field", EXTRA)
def test_an_extra_tensor_is_named_with_the_field_that_does_not_ask_for_it(
    folder: Path, field: str
) -> None:
    change_tensors(folder, _extra(EXTRA[field]))
    sentence = _refusal(folder)
    assert EXTRA[field] in sentence
    assert field in sentence


FIELDS: dict[str, tuple[int, str]] = {
    "num_hidden_layers": (3, "which is 3: the files hold nothing of layer 2"),
    "n_routed_experts": (9, "n_routed_experts in config.json must be"),
    "q_lora_rank": (60, "q_lora_rank in config.json must be"),
    "kv_lora_rank": (60, "kv_lora_rank + qk_rope_head_dim in config.json must be"),
    "index_n_heads": (20, "index_n_heads * index_head_dim in config.json must be"),
    "n_shared_experts": (2, "moe_intermediate_size * n_shared_experts in config.json must be"),
    "vocab_size": (300, "vocab_size in config.json must be"),
    "hidden_size": (100, "hidden_size in config.json must be"),
    "v_head_dim": (24, "num_attention_heads * (qk_nope_head_dim + v_head_dim) in config.json"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_field_is_named_by_the_tensor_that_does_not_fit(folder: Path, field: str) -> None:
    value, message = FIELDS[field]
    change_config(folder, **{field: value})
    assert message in _refusal(folder)


@pytest.mark.parametrize(
    ("dense", "message"), [(2, "which is 2: layer 1 has experts"), (0, "which is 0: layer 0 is")]
)
def test_another_number_of_dense_layers_is_named(folder: Path, dense: int, message: str) -> None:
    change_config(folder, first_k_dense_replace=dense)
    sentence = _refusal(folder)
    assert f"correct first_k_dense_replace in config.json, {message}" in sentence


def test_fewer_experts_than_the_files_hold_are_named(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update(_fewer_rows(t)))
    change_config(folder, n_routed_experts=4, n_group=2, topk_group=2)
    assert "correct n_routed_experts in config.json, which is 4" in _refusal(folder)


def _fewer_rows(tensors: Tensors) -> Tensors:
    return {n: t[:4].contiguous() for n, t in tensors.items() if ".mlp.gate." in n}


def test_a_layer_of_mtp_that_is_counted_as_a_decoder_layer_is_named(mtp: Path) -> None:
    change_config(mtp, num_hidden_layers=4, num_nextn_predict_layers=0)
    assert "which is 4: it counts layer 3, a layer of multi-token" in _refusal(mtp)


def test_a_tied_head_and_full_queries_are_named(folder: Path) -> None:
    change_tensors(folder, _without("lm_head"))
    assert "lostwax implements no tie_word_embeddings" in _refusal(folder)
    name = "model.layers.0.self_attn.q_"

    def full(tensors: Tensors) -> None:
        _without(f"{name}a_proj")(tensors)
        tensors[f"{name}proj.weight"] = torch.zeros(5, 5)

    change_tensors(folder, full)
    assert "queries of low rank (q_lora_rank) only" in _refusal(folder)


def test_a_name_that_no_tensor_has_is_shown_on_one_line(folder: Path) -> None:
    change_tensors(folder, _extra("a\x1b[2J\n" * 99))
    sentence = _refusal(folder)
    assert "no tensor's name" in sentence
    assert sentence.isprintable()
