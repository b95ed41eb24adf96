"""The MTP layer against transformers' decoder layer, which serves as its oracle.

transformers ignores MTP layers, and the official demo has none. So the oracle is put together here
from the paper's formula: u_i = eh_proj [enorm(embed(t_{i+1})) ‖ hnorm(h_i)], with h_i transformers'
hidden behind the final norm; then a model of one layer, with the MTP layer's weights, reads u as
its embeddings. Its final norm is shared_head.norm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import Model, dequantised, hf_model
from reference_model import ReferenceModel, f32_module
from tiny import MTP, write_config
from torch import Tensor

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import Runtime, load
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import Checkpoint, open_checkpoint
from lostwax.frontend.new_checkpoint import Format, new_checkpoint
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import Enter
from lostwax.ir.reference.interpret import evaluate_step

LAYER = f"model.layers.{MTP['num_hidden_layers']}."
TOLERANCE = 1e-4  # of hiddens and logits of order 1
PAGE = 16
TOKENS = [int(t) for t in np.random.default_rng(0).integers(0, MTP["vocab_size"], 90)]
"""Far more than index_topk 32."""


@dataclass
class Oracle:
    """transformers' main model, and its decoder layer with the MTP layer's weights."""

    checkpoint: Checkpoint

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All weights in fp32."""
        return dequantised(self.checkpoint.folder)

    @cached_property
    def main(self) -> Model:
        """The model without its MTP layer."""
        return hf_model(self.checkpoint.folder)

    @cached_property
    def layer(self) -> Model:
        """One MoE layer, shared_head.norm and the output projection."""
        from transformers import DeepseekV32Config, DeepseekV32ForCausalLM

        weights = {"model.embed_tokens.weight": self.tensors["model.embed_tokens.weight"]}
        weights["lm_head.weight"] = self.tensors["lm_head.weight"]
        weights["model.norm.weight"] = self.tensors[LAYER + "shared_head.norm.weight"]
        for name, tensor in self.tensors.items():
            if name.startswith(LAYER):
                weights["model.layers.0." + name.removeprefix(LAYER)] = tensor
        raw = json.loads((self.checkpoint.folder / "config.json").read_text())
        raw.pop("quantization_config", None)
        raw |= {"num_hidden_layers": 1, "first_k_dense_replace": 0}
        config: Any = DeepseekV32Config(**raw)
        config.dtype = torch.float32
        model: Model = DeepseekV32ForCausalLM.from_pretrained(
            None, config=config, state_dict=weights, attn_implementation="eager",
            dtype=torch.float32,
        )  # fmt: skip
        return model.eval()

    def hidden(self, tokens: list[int]) -> Tensor:
        """Main model's hiddens behind the final norm, [tokens, D]."""
        with torch.no_grad():
            return self.main.model(torch.tensor([tokens]), use_cache=False).last_hidden_state[0]

    def inputs(self, hidden: Tensor, behind: list[int]) -> Tensor:
        """u of hiddens and the tokens behind them."""
        eps = self.checkpoint.config.rms_norm_eps

        def normed(x: Tensor, name: str) -> Tensor:
            return x * (x.square().mean(-1, True) + eps).rsqrt() * self.tensors[LAYER + name]

        embedded = self.tensors["model.embed_tokens.weight"][behind]
        both = [normed(embedded, "enorm.weight"), normed(hidden, "hnorm.weight")]
        return torch.cat(both, -1) @ self.tensors[LAYER + "eh_proj.weight"].t()

    def run(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Normed hiddens and logits of all rows, seen as one request."""
        with torch.no_grad():
            found = self.layer.model(inputs_embeds=u[None], use_cache=False).last_hidden_state[0]
            return found, self.layer.lm_head(found)


FORMATS: list[Format] = ["fp32", "fp8"]


@pytest.fixture(scope="module", params=FORMATS)
def oracle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    folder = tmp_path_factory.mktemp("mtp")
    source = write_config(folder / "source", MTP)
    new_checkpoint(source, folder / "checkpoint", seed=3, format=request.param)
    return Oracle(open_checkpoint(folder / "checkpoint"))


@pytest.fixture(scope="module")
def runtime(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    c = capture(oracle.checkpoint, PAGE)
    sizes = Sizes(max_context=128, max_tokens=40, max_reqs=2, max_score_rows=8, max_drafts=2)
    out: Path = tmp_path_factory.mktemp("artifact") / "mtp"
    options = CompileOptions(dtype="f32", sizes=sizes)
    compile_module(c.module, c.facts, c.weights, "cpu", out, options)
    return load(out, checkpoint=oracle.checkpoint.folder, num_pages=20)


def plan(
    tokens: list[int],
    first: int,
    *,
    drafts: int = 0,
    behind: int | None = None,
    decode: bool = False,
) -> StepPlan:
    """Rows of one request in pages 9, 8, 7, …: they pick, unless what stands `behind` is given."""
    count, end = len(tokens), first + len(tokens)
    room = end + drafts + 1
    pages = tuple(9 - i for i in range(-(-room // PAGE)))
    enter = Enter(1, pages, first, room, 0, tokens=tuple(tokens) if decode else ())
    picks = 0 if behind is not None else count if decode else 1
    return StepPlan(
        entry="decode" if decode else "extend",
        seqs=(1,),
        counts=(count,),
        ends=(end,),
        tokens=() if decode else tuple(tokens),
        entering=(enter,),
        logits=((count - picks, picks),) if picks else (),
        drafts=drafts,
        behind=() if behind is None else (behind,),
    )


def state(runtime: Runtime, rows: int, width: int) -> Tensor:
    """The hiddens that the last step left."""
    hidden = torch.from_numpy(runtime.memory.states["hidden"])
    return hidden.view(torch.float32).view(-1, width)[:rows].clone()


def test_hiddens_and_drafts_are_the_oracles_in_chunks_and_in_decode_steps(
    oracle: Oracle, runtime: Runtime
) -> None:
    width = oracle.checkpoint.config.hidden_size
    hidden = oracle.hidden(TOKENS)
    first = 0
    for count in (1, 30, 17, 38, 1, 1, 1):
        chunk, at = TOKENS[first : first + count], slice(first, first + count)
        runtime.run(plan(chunk, first, decode=count == 1))
        assert (state(runtime, count, width) - hidden[at]).abs().max() < TOLERANCE
        result = runtime.run(plan(chunk, first, drafts=1, decode=count == 1))
        (picked,), ((draft,),) = result.ids, result.drafts
        behind = [*TOKENS[1 : at.stop], picked]
        want, logits = oracle.run(oracle.inputs(hidden[: at.stop], behind))
        assert (state(runtime, count, width) - want[at]).abs().max() < TOLERANCE, first
        assert draft == int(logits[-1].argmax())
        # From here on the text goes another way: the layer is told what stands behind the chunk.
        runtime.run(plan(chunk, first, drafts=1, behind=TOKENS[at.stop]))
        want, _ = oracle.run(oracle.inputs(hidden[: at.stop], TOKENS[1 : at.stop + 1]))
        assert (state(runtime, count, width) - want[at]).abs().max() < TOLERANCE, first
        first += count


def test_a_second_draft_continues_the_hidden_of_the_first(oracle: Oracle, runtime: Runtime) -> None:
    width, count = oracle.checkpoint.config.hidden_size, 39
    tokens = TOKENS[:count]
    result = runtime.run(plan(tokens, 0, drafts=2))
    (picked,), (drafts,) = result.ids, result.drafts
    u = oracle.inputs(oracle.hidden(tokens), [*tokens[1:], picked])
    hidden, logits = oracle.run(u)
    assert drafts[0] == int(logits[-1].argmax())
    want, logits = oracle.run(torch.cat([u, oracle.inputs(hidden[-1:], drafts[:1])]))
    assert (state(runtime, 1, width) - want[-1]).abs().max() < TOLERANCE
    assert drafts[1] == int(logits[-1].argmax())


def test_rows_of_rejected_drafts_are_left_out(oracle: Oracle, runtime: Runtime) -> None:
    """After a decode step of three rows of which one holds, the layer sees the first row only."""
    count = 34
    tokens, token = TOKENS[:count], TOKENS[count]
    runtime.run(plan(tokens, 0, drafts=1, behind=token))
    (picked, *_) = runtime.run(plan([token], count, decode=True)).ids
    wrong = [(picked + shift) % MTP["vocab_size"] for shift in (1, 2)]
    result = runtime.run(plan([token, *wrong], count, drafts=1, decode=True))
    assert result.ids[0] == picked
    u = oracle.inputs(oracle.hidden(TOKENS[: count + 1]), [*TOKENS[1 : count + 1], picked])
    want, logits = oracle.run(u)
    assert (state(runtime, 1, want.shape[1]) - want[-1]).abs().max() < TOLERANCE
    assert result.drafts == [[int(logits[-1].argmax())]]


class DraftReference(ReferenceModel):
    """The fp64 meaning of the captured module, with `@draft` behind `@body`."""

    def hiddens(self, tokens: list[int]) -> tuple[Any, Any, Any]:
        """Main hiddens, MTP's hiddens and drafted ids of one request."""
        count = len(tokens) - 1
        positions = np.arange(count, dtype=np.int32)
        common: dict[str, Any] = {
            "positions": positions,
            "slots": self.pages[positions // PAGE] * PAGE + positions % PAGE,
            "q_starts": [0, count],
            "kv_lens": [count],
            "page_table": self.pages[None],
            "logit_rows": positions,
            "seeds": np.zeros(count),
            "counters": np.zeros(count),
            "targets": np.zeros(count),
            "mask_rows": np.full(count, -1),
            "hidden_rows": positions,
        }
        inputs: dict[str, Any] = {n: np.asarray(v, np.int32) for n, v in common.items()}
        inputs["temperature"] = np.zeros(count, np.float32)
        inputs["top_k"] = np.zeros(count, np.int32)
        inputs["count_rows"] = np.full(count, -1, np.int32)
        inputs["recent"] = np.full((count, 3), -1, np.int32)
        inputs["repetition"] = np.ones(count, np.float32)
        inputs["frequency"] = inputs["presence"] = np.zeros(count, np.float32)
        inputs["bias_rows"] = np.full(count, -1, np.int32)
        inputs["top_p"] = np.ones(count, np.float32)
        inputs["min_p"] = np.zeros(count, np.float32)
        inputs["tokens"] = np.asarray(tokens[:-1], np.int32)
        (hidden,) = evaluate_step(self.module, "body", inputs, self.weight, self.caches)
        inputs["tokens"] = np.asarray(tokens[1:], np.int32)
        inputs["hidden"] = hidden
        (drafted,) = evaluate_step(self.module, "draft", inputs, self.weight, self.caches)
        inputs["hidden"] = drafted
        ids, _ = evaluate_step(self.module, "pick", inputs, self.weight, self.caches)
        return hidden, drafted, ids


def test_the_reference_of_the_captured_layer_is_the_oracle(oracle: Oracle) -> None:
    tokens = TOKENS[:60]
    reference = DraftReference(oracle.checkpoint, f32_module(oracle.checkpoint), len(tokens))
    config = oracle.checkpoint.config
    layer, pages = config.num_hidden_layers, len(reference.pages) + 1
    for plane, row in (
        ("latent", config.kv_lora_rank + config.qk_rope_head_dim),
        ("index_key", config.index_head_dim),
    ):
        reference.caches[layer, plane] = np.zeros((pages, PAGE, row), np.float32)
    hidden, drafted, ids = reference.hiddens(tokens)
    main = oracle.hidden(tokens[:-1])
    want, logits = oracle.run(oracle.inputs(main, tokens[1:]))
    assert np.abs(np.asarray(hidden) - main.numpy()).max() < TOLERANCE
    assert np.abs(np.asarray(drafted) - want.numpy()).max() < TOLERANCE
    assert list(ids) == logits.argmax(-1).tolist()
