"""Plays the same steps on artifacts, on one rank or on several, and notes what came.

As a script, once a rank: `play_steps.py RANK RANKS OUT CHECKPOINT=ARTIFACT …`; the ranks meet over
OUT/meeting, rank R writes OUT/R.json. Knows no test.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from ascend_twin import TWIN
from mask_bits import mask_of
from step_oracle import StepBatch, plan_of

from lostwax.backends.ascend.kernels import attention as ascend_attention
from lostwax.backends.cpu.kernels import indexer as cpu_indexer
from lostwax.backends.cpu.kernels import row_by_row
from lostwax.backends.portable.kernels import indexer, route, selection
from lostwax.backends.runtime.gloo import gather, part
from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.ranks import RankError, Ranks
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit

PROMPTS = (70, 41)
"""Tokens of the two requests' prompts: above `index_topk` 32, so that selections differ."""
CHUNKS = ((33, 20), (37, 21))
DECODES = 6
CHOOSING = (
    (cpu_indexer, "index_topk"),
    (row_by_row, "index_topk"),
    (indexer, "index_topk"),
    (selection, "topk"),
    (ascend_attention, "index_topk"),
)
"""Host functions that choose positions, as programs name them."""
Note = dict[str, Any]  # as JSON holds it


def batch_of(parts: list[tuple[list[int], int, int]]) -> StepBatch:
    """A step of (tokens so far, first position, count) a request, each in pages of its own."""
    one = {
        "temperature": 0.0, "seeds": 0, "counters": 0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
        "count_rows": -1, "recent": [-1, -1, -1], "repetition": 1.0, "frequency": 0.0,
        "presence": 0.0, "bias_rows": -1, "mask_rows": -1, "bias": dict[int, float](),
    }  # fmt: skip
    fields: dict[str, list[Any]] = {"tokens": [], "positions": [], "slots": [], "targets": []}
    starts, pages_of = [0], list[list[int]]()
    for request, (tokens, first, count) in enumerate(parts):
        pages = [1 + 2 * i + request for i in range(-(-(first + count) // 64))]
        run = range(first, first + count)
        fields["tokens"] += tokens[first : first + count]
        fields["positions"] += run
        fields["slots"] += [pages[p // 64] * 64 + p % 64 for p in run]
        fields["targets"] += [[*tokens, -1][p + 1] for p in run]
        starts.append(starts[-1] + count)
        pages_of.append(pages)
    rows = starts[-1]
    return StepBatch(
        masks=None,
        entry="decode" if all(count == 1 for *_, count in parts) else "extend",
        q_starts=starts,
        kv_lens=[first + count for _, first, count in parts],
        page_table=pages_of,
        logit_rows=list(range(rows)),
        head="score",
        **{name: [value] * rows for name, value in one.items()},
        **fields,
    )


def play(runtime: Runtime) -> Note:
    """Two requests in chunks of unequal lengths, then greedy decodes of both, the last ones of the
    second request from a third of the ids."""
    vocab = runtime.limits.vocab_size
    texts = [[(17 * i + 5 * r + 3) % vocab for i in range(n)] for r, n in enumerate(PROMPTS)]
    done = [0, 0]
    note: Note = {"ids": [], "scores": [], "programs": []}

    def step(counts: tuple[int, int], third: int | None = None) -> list[int]:
        parts = list(zip(texts, done, counts, strict=True))
        if third is None:
            result = runtime.run(plan_of(batch_of(parts)))
        else:
            batch = batch_of(parts)
            batch.targets, batch.mask_rows = [-1, -1], [-1, 0]
            ticket = runtime.submit(plan_of(batch))
            ticket.finish(mask_of(range(third, vocab, 3), vocab)[None])
            result = ticket.result()
            assert result.ids[1] % 3 == third
        note["ids"] += result.ids
        rows = zip(result.target_logprobs, result.top_logprobs, strict=True)
        note["scores"].append([[target, *top] for target, top in rows])
        note["programs"].append(result.program)
        for request, count in enumerate(counts):
            done[request] += count
        return [result.ids[counts[0] - 1], result.ids[-1]]

    picked: list[int] = []
    for chunk in CHUNKS:
        picked = step(chunk)
    for _ in range(DECODES):
        for text, token in zip(texts, picked, strict=True):
            text.append(token)
        picked = step((1, 1))
    for third in range(3):
        for text, token in zip(texts, picked, strict=True):
            text.append(token)
        picked = step((1, 1), third)
    return note


def play_drafting(runtime: Runtime) -> Note:
    """One request by the engine, which drafts as much as the artifact can verify."""
    core = EngineCore(runtime)
    prompt = [7 * i % 61 for i in range(40)]
    core.handle(Submit(request="drafted", prompt=prompt, max_tokens=12, ignore_eos=True))
    tokens: list[int] = []
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output)
            tokens += [score.token for score in event.tokens]
    return {"drafted": tokens, "num_drafted": core.drafting.num_drafted}


@contextmanager
def routes() -> Generator[list[list[tuple[list[int], float]]]]:
    """A call and row: the experts that route chooses meanwhile, in order of their ids, and by how
    much the last of them scored above the best that was left."""
    found: list[list[tuple[list[int], float]]] = []
    kernel = route.route

    @wraps(kernel)
    def run(logits: torch.Tensor, bias: torch.Tensor, *args: torch.Tensor, **consts: Any) -> None:
        kernel(logits, bias, *args, **consts)
        ids = args[1]
        scores = (torch.sigmoid(logits.float()) + bias).sort(-1, descending=True).values
        margins = scores[:, ids.shape[1] - 1] - scores[:, ids.shape[1]]
        found.append(list(zip(ids.sort(-1).values.tolist(), margins.tolist(), strict=True)))

    with patch.object(route, "route", run):
        yield found


@contextmanager
def selections() -> Generator[list[str]]:
    """Digests of every set of positions that is chosen meanwhile, in order."""
    found: list[str] = []

    def recording(kernel: Callable[..., None]) -> Callable[..., None]:
        @wraps(kernel)  # only functions of kernels packages are called
        def run(*args: torch.Tensor | None, **consts: Any) -> None:
            kernel(*args, **consts)
            chosen: torch.Tensor = signature(kernel).bind(*args, **consts).arguments["out"]
            found.append(hashlib.sha256(chosen.numpy().tobytes()).hexdigest())

        return run

    with ExitStack() as patches:
        for module, name in CHOOSING:
            kernel = recording(getattr(module, name))
            patches.enter_context(patch.object(module, name, kernel))
        yield found


def play_artifact(artifact: Path, checkpoint: Path) -> Note:
    """What this rank saw: results on the first, selections on all."""
    with selections() as found, routes() as routed:
        runtime = load(
            artifact, checkpoint=checkpoint, num_pages=12, threads=1, extra_backends=(TWIN,)
        )
        if runtime.ranks.rank.index == 0:
            note = play(runtime)
            if runtime.limits.max_drafts:
                note |= play_drafting(runtime)
            runtime.ranks.dismiss()
        else:
            runtime.follow()
            note = {}
    return note | {"selections": found, "routes": routed, "digest": runtime.manifest.digest}


def _refusal_of_strangers() -> str:
    """What ranks hear that loaded different things."""
    ranks = Ranks.join(2)
    try:
        ranks.meet(f"artifact {ranks.rank.index}")
    except RankError as error:
        return str(error)
    return ""


def main() -> None:
    """Play every artifact in turn."""
    rank, count, out, *pairs = sys.argv[1:]
    gather(Path(out, "meeting"), int(rank), int(count))
    notes: dict[str, Note] = {}
    for checkpoint, artifact in (pair.split("=") for pair in pairs):
        notes[artifact] = play_artifact(Path(artifact), Path(checkpoint))
    ranks = Ranks.join(2)
    notes["strangers"] = {"refusal": _refusal_of_strangers()}
    Path(out, f"{ranks.rank.index}.json").write_text(json.dumps(notes))
    part()


if __name__ == "__main__":
    main()
