"""Changes the tensors of a checkpoint of one shard, and its index with them, as a converter would.

Knows no configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]


def change_tensors(folder: Path, change: Callable[[Tensors], None]) -> None:
    """Read all tensors, change them, and write shard and index anew."""
    (shard,) = folder.glob("*.safetensors")
    tensors: Tensors = load_file(shard)
    change(tensors)
    save_file(tensors, shard, {"format": "pt"})
    index = {"weight_map": dict.fromkeys(tensors, shard.name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def change_config(folder: Path, **fields: object) -> None:
    """Set fields of `config.json`."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
