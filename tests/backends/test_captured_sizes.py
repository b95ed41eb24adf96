"""Which programs the GPU targets capture, of those that the real model's sizes give.

A graph takes memory and a part of a second at load: their number stays bounded however large the
steps are.
"""

from __future__ import annotations

import pytest

from lostwax.backends.cuda.lowerings.causal_mha import CAUSAL_MHA
from lostwax.backends.cuda.lowerings.masked_mha import MASKED_MHA
from lostwax.backends.cuda.target import CUDA_SM90A, CUDA_SM100A
from lostwax.backends.plan.sizes import ProgramSpec, Sizes, limits_of, program_specs
from lostwax.backends.rocm.target import ROCM_GFX942, ROCM_GFX950
from lostwax.ir.contract.captured import may_be_captured
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import HEADS
from lostwax.ir.contract.target import Target

V32 = ModelFacts(
    name="v32", architecture="DeepseekV32ForCausalLM", digest="0", vocab_size=129_280,
    num_layers=61, hidden_size=7168, index_topk=2048, max_context=163_840, page_tokens=64,
    bos_token_id=0, eos_token_ids=(1,),
)  # fmt: skip
LARGE = Sizes(max_context=131_072, max_tokens=8192, max_reqs=128, max_drafts=3)
CUDA, ROCM = (CUDA_SM90A, CUDA_SM100A), (ROCM_GFX942, ROCM_GFX950)
HEADS_OF_A_RANK = 128
UP_TO = {"cuda": 512, "rocm": 512}
"""Rows of the largest extend step that is captured."""
MOST = 48
"""Graphs of extend steps: six numbers of rows by five of pages, some with guards of their own."""


def specs(sizes: Sizes) -> tuple[ProgramSpec, ...]:
    """With the guards that lowerings of GPUs ask for."""
    return program_specs(
        V32, limits_of(V32, sizes), CAUSAL_MHA.contexts_a_row,
        lambda rows: MASKED_MHA.selecting_contexts(rows, HEADS_OF_A_RANK),
    )  # fmt: skip


def captured(target: Target, sizes: Sizes) -> list[ProgramSpec]:
    return [spec for spec in specs(sizes) if may_be_captured(spec.segment, spec.bucket, target)]


@pytest.mark.parametrize("target", [*CUDA, *ROCM], ids=lambda each: each.name)
@pytest.mark.parametrize("sizes", [Sizes(), LARGE], ids=["default", "large"])
def test_extend_steps_are_captured_up_to_the_rows_that_the_target_says(
    target: Target, sizes: Sizes
) -> None:
    rows = {spec.bucket.tokens for spec in captured(target, sizes) if spec.segment == "extend"}
    assert rows == {
        tokens for tokens in (16, 32, 64, 128, 256, 512) if tokens <= UP_TO[target.backend]
    }


@pytest.mark.parametrize("target", [*CUDA, *ROCM], ids=lambda each: each.name)
def test_heads_and_steps_of_a_row_a_request_are_captured_at_all_sizes(target: Target) -> None:
    wanted = [spec for spec in specs(LARGE) if spec.segment in {"decode", "draft", *HEADS}]
    found = [spec for spec in captured(target, LARGE) if spec.segment != "extend"]
    assert found == wanted


def test_steps_of_more_rows_bring_no_more_graphs_of_extend_steps() -> None:
    def count(max_tokens: int) -> int:
        sizes = Sizes(max_context=131_072, max_tokens=max_tokens, max_reqs=128, max_drafts=3)
        return sum(spec.segment == "extend" for spec in captured(CUDA_SM90A, sizes))

    assert count(1024) == count(8192) == count(65_536)
    assert 0 < count(8192) <= MOST
