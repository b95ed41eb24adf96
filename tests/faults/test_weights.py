"""A checkpoint that is not the one that was compiled is refused by name before anything is served.

The compile reads no weights, so what only their values show is found when they are loaded.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Run, one_sentence
from safetensors.torch import load_file, save_file
from small import SMALL
from tiny import write_config
from torch import Tensor

from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch, content_digest
from lostwax.backends.runtime.load import load
from lostwax.cli.compile import compile_checkpoint

SCALE = "model.layers.0.self_attn.o_proj.weight_scale_inv"


@dataclass(frozen=True)
class Pair:
    """A checkpoint and what was compiled from it."""

    checkpoint: Path
    artifact: Path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """An FP8 checkpoint, compiled by the command's own function."""
    from lostwax.frontend.new_checkpoint import new_checkpoint

    folder = tmp_path_factory.mktemp("fp8")
    new_checkpoint(write_config(folder, SMALL), folder / "ckpt", seed=0, format="fp8")
    compile_checkpoint(
        folder / "ckpt",
        folder / "art",
        target="cpu",
        dtype="bf16",
        max_context=512,
        max_tokens=64,
        max_reqs=2,
    )
    return Pair(folder / "ckpt", folder / "art")


@pytest.fixture
def pair(compiled: Pair, tmp_path: Path) -> Pair:
    """Copies that a test may damage."""
    copy = Pair(tmp_path / "ckpt", tmp_path / "art")
    shutil.copytree(compiled.checkpoint, copy.checkpoint)
    shutil.copytree(compiled.artifact, copy.artifact)
    return copy


def _shard(pair: Pair) -> Path:
    (shard,) = pair.checkpoint.glob("*.safetensors")
    return shard


def _change(pair: Pair, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors: dict[str, Tensor] = load_file(_shard(pair))
    change(tensors)
    save_file(tensors, _shard(pair), {"format": "pt"})


def _forget_content(pair: Pair) -> None:
    """As if the checkpoint had been so when it was compiled."""
    (pair.artifact / "checkpoint.json").write_text(json.dumps({"path": str(pair.checkpoint)}))


def test_an_unchanged_checkpoint_loads(pair: Pair) -> None:
    load(pair.artifact, checkpoint=pair.checkpoint)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scales_that_are_no_numbers_are_named_when_loading(pair: Pair, value: float) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[SCALE][0, 0] = value

    _change(pair, spoil)
    _forget_content(pair)
    with pytest.raises(CheckpointMismatch, match=rf"{SCALE} holds NaN or infinity.*download"):
        load(pair.artifact, checkpoint=pair.checkpoint)


def _flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _flip_header(data: bytes) -> bytes:
    return data[:9] + bytes([data[9] ^ 1]) + data[10:]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a weight's last bit": _flip_last,
    "cut short": lambda data: data[:-1],
    "header cut short": lambda data: data[:50],
    "a bit of the header": _flip_header,
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_that_changed_is_refused_by_its_file(run: Run, pair: Pair, name: str) -> None:
    shard = _shard(pair)
    shard.write_bytes(CHANGES[name](shard.read_bytes()))
    with pytest.raises(CheckpointMismatch, match=shard.name):
        load(pair.artifact, checkpoint=pair.checkpoint)
    status, out, err = run("verify", pair.artifact, "--checkpoint", pair.checkpoint)
    assert (status, out) == (1, "")
    assert shard.name in one_sentence(err)


def test_a_shard_that_is_gone_asks_for_the_checkpoint(pair: Pair) -> None:
    _shard(pair).unlink()
    with pytest.raises(CheckpointMismatch, match="is missing; give the checkpoint that was"):
        load(pair.artifact, checkpoint=pair.checkpoint)


def test_every_tensor_is_sampled(pair: Pair) -> None:
    """Another value of any one tensor is noticed, wherever in the file it lies."""
    names = sorted(load_file(_shard(pair)))
    original = _shard(pair).read_bytes()
    before = content_digest(_shard(pair))
    for name in names[:: max(len(names) // 20, 1)]:
        _shard(pair).write_bytes(original)

        def negate(tensors: dict[str, Tensor], name: str = name) -> None:
            tensors[name] = (tensors[name].float() / 2 + 1).to(tensors[name].dtype)

        _change(pair, negate)
        assert content_digest(_shard(pair)) != before, name
