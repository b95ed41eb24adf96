"""The fp64 reference with weights as a build's types hold them, beside the build's artifact."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from harness import Build, Models, Player
from numpy.typing import NDArray
from reference_model import PAGE, ReferenceModel
from safetensors.torch import load_file
from xdsl.ir import Attribute

from lostwax.backends.cpu.target import CPU
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import Checkpoint
from lostwax.ir.dialects import context
from lostwax.ir.reference.dtype import Scaled, Value, round_to
from lostwax.ir.reference.weight_forms import requantise
from lostwax.ir.types import TensorType

BLOCK = 128  # config: quantization_config.weight_block_size


class StoredModel(ReferenceModel):
    """The reference with weights as the types hold them: fp8 with block scales, int8 with a scale a
    row, bf16, f32."""

    def __init__(self, checkpoint: Checkpoint, build: Build, num_tokens: int) -> None:
        module = capture(checkpoint, page_tokens=PAGE).module
        build.formats.assign(build.dtype, build.weights, CPU).apply(context(), module)
        module.verify()
        super().__init__(checkpoint, module, num_tokens)
        self._stored: dict[str, torch.Tensor] = {}
        for file in checkpoint.folder.glob("*.safetensors"):
            self._stored.update(load_file(file))

    def weight(self, name: str, kind: object) -> Value:
        assert isinstance(kind, Attribute)
        assert isinstance(kind, TensorType)
        if kind.dtype_name == "si8":
            assert kind.block_scale is not None
            return requantise(super().weight(name, kind), "si8", kind.block_scale.layout)
        if not kind.dtype_name.startswith("f8"):
            return round_to(super().weight(name, kind), kind.dtype_name)
        parts = [self._scaled(source.tensor) for source in self.table[name]]
        if len(kind.sizes) == 2:
            return parts[0]
        values, scales = (np.stack([getattr(p, n) for p in parts]) for n in ("values", "scales"))
        return Scaled(values, scales, BLOCK, BLOCK)

    def _scaled(self, name: str) -> Scaled:
        bits = self._stored[name].view(torch.uint8).numpy()
        scales = self._stored[name + "_scale_inv"].numpy()
        return Scaled(bits.view(ml_dtypes.float8_e4m3fn), scales, BLOCK, BLOCK)


def differences(models: Models, build: Build, num_tokens: int) -> NDArray[np.float64]:
    """|log-probability - reference's| of each token, over a prefill and four decode steps."""
    checkpoint = models.checkpoint(build.config, build.seed, build.format)
    tokens = build.tokens(num_tokens)
    player = Player(models.runtime(build))
    request = player.open(tokens)
    rows = player.extend([(request, num_tokens - 4)])
    rows += [row for _ in range(4) for row in player.decode([request], scores=True)]
    got = np.array([p for row in rows for p in row.target_logprobs])
    reference = StoredModel(checkpoint, build, num_tokens)
    want, _ = reference.step(np.array(tokens), np.array([*tokens[1:], 0]))
    return np.abs(got - want)[:-1]  # the last token has no target
