"""Whether one request's way to sample costs its neighbours anything, and what drafting gains.

`python benchmarks/mixed_batch.py ARTIFACT --checkpoint DIR --out FILE` runs, in interleaved pairs,
seven greedy requests beside an eighth that is greedy or samples in one of several ways: their
tokens, steps and accepted drafts must be equal. `others_rate` is the seven's tokens a second, until
the last of them ends, beside the eighth sampling, as a share of that beside it greedy; `own_rate`
is the eighth's steps a second. Then tokens a second without drafts and with as many as the artifact
verifies, at 1 and 8 requests. Prompts are text of the tiny model's tasks, and run whole: they begin
alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tokenizers import Tokenizer

from lostwax.backends.runtime.load import Runtime, load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions

TEXT = "Once upon a time there was a small boat on a wide river, and its captain was called "
NAMES = ("Ada", "Ben", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hope")
TOKENS = 160
WAYS: dict[str, dict[str, Any]] = {
    "top_p": {"temperature": 1.0, "top_p": 0.95, "seed": 7},
    "top_k, min_p": {"temperature": 1.0, "top_k": 40, "min_p": 0.05, "seed": 7},
    "penalties": {
        "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": 0.5,
    },
    "logit_bias": {"logit_bias": {5: -100.0, 6: 1.0}},
    "logprobs": {"top_logprobs": 5},
}  # fmt: skip
"""How the last request samples, one after another."""


@dataclass
class Outcome:
    """What some requests of a batch got, step by step."""

    seconds: float
    accepted: int
    ended: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds from the begin to the last token of each."""
    tokens: dict[str, list[list[int]]] = field(default_factory=dict[str, list[list[int]]])

    def of(self, names: tuple[str, ...]) -> dict[str, list[list[int]]]:
        """Tokens by step of these requests, steps that gave them none left out."""
        return {name: [step for step in self.tokens[name] if step] for name in names}


def run(runtime: Runtime, submits: list[Submit], drafts: int) -> Outcome:
    """Run requests together until all have ended."""
    core = EngineCore(
        runtime, EngineOptions(drafts, prefix_cache=False), depth=int(runtime.overlaps)
    )
    for submit in submits:
        assert core.handle(submit) == []
    found = Outcome(0.0, 0, tokens={submit.request: [] for submit in submits})
    begin = time.perf_counter()
    while core.has_work:
        for event in core.step():
            assert not isinstance(event, Failed), event
            found.ended[event.request] = time.perf_counter() - begin
            found.tokens[event.request].append([score.token for score in event.tokens])
    found.seconds, found.accepted = time.perf_counter() - begin, core.drafting.num_accepted
    return found


def requests(tokenizer: Tokenizer, count: int, **last: Any) -> list[Submit]:
    """`count` greedy requests; `last` changes the last one."""
    made: list[Submit] = []
    for index, name in enumerate(NAMES[:count]):
        changes = last if index == count - 1 else {}
        prompt = tokenizer.encode(TEXT + name).ids
        common: dict[str, Any] = {"max_tokens": TOKENS, "ignore_eos": True}
        made.append(Submit(request=name, prompt=prompt, **common, **changes))
    return made


def mixed(runtime: Runtime, tokenizer: Tokenizer, pairs: int) -> dict[str, Any]:
    """The greedy requests beside the last one, for each way that this samples."""
    drafts, count = runtime.limits.max_drafts, min(len(NAMES), runtime.limits.max_reqs)
    greedy, others = requests(tokenizer, count), NAMES[: count - 1]
    found: dict[str, Any] = {}
    for way, changes in WAYS.items():
        sampling = requests(tokenizer, count, **changes)
        rates: list[float] = []
        own: list[float] = []
        equal = True
        for pair in range(pairs):
            both = [greedy, sampling] if pair % 2 else [sampling, greedy]
            outcomes = [run(runtime, submits, drafts) for submits in both]
            plain, sampled = outcomes if pair % 2 else reversed(outcomes)
            equal &= plain.of(others) == sampled.of(others)
            last = NAMES[count - 1]
            ends = [max(o.ended[name] for name in others) for o in (plain, sampled)]
            rates.append(ends[0] / ends[1])
            # Its own answer is another one, and has another length in steps: compare time a step.
            steps = [o.ended[last] / len(o.tokens[last]) for o in (plain, sampled)]
            own.append(steps[0] / steps[1])
        found[way] = {
            "others_equal": equal,
            "others_rate": round(median(rates), 4),
            "quartiles": [round(q, 4) for q in quantiles(rates)[::2]],
            "own_rate": round(median(own), 4),
        }
    return found | {"requests": count, "pairs": pairs}


def drafting(runtime: Runtime, tokenizer: Tokenizer, pairs: int) -> dict[str, Any]:
    """Tokens a second of all requests together, without drafts and with."""
    found: dict[str, Any] = {}
    for count in (1, min(8, runtime.limits.max_reqs)):
        seconds: dict[int, list[float]] = {0: [], runtime.limits.max_drafts: []}
        answers: dict[int, object] = {}
        for pair in range(pairs):
            for drafts in sorted(seconds, reverse=bool(pair % 2)):
                outcome = run(runtime, requests(tokenizer, count), drafts)
                seconds[drafts].append(outcome.seconds)
                answers[drafts] = {n: list(chain(*steps)) for n, steps in outcome.tokens.items()}
        rates = {f"drafts_{d}": round(count * TOKENS / median(s), 1) for d, s in seconds.items()}
        found[f"{count}_requests"] = rates | {
            "tokens_equal": len(set(map(str, answers.values()))) == 1
        }
    return found


def main() -> None:
    """Parse the command line, load and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    runtime = load(options.artifact, checkpoint=options.checkpoint, num_pages=257)
    tokenizer = Tokenizer.from_file(str(options.artifact / "tokenizer.json"))
    for changes in ({}, *WAYS.values()):  # binds and captures
        run(runtime, requests(tokenizer, len(NAMES), **changes), runtime.limits.max_drafts)
    report = {
        "command": " ".join(["python", "benchmarks/mixed_batch.py", *sys.argv[1:]]),
        "artifact": runtime.manifest.digest,
        "target": runtime.manifest.target.name,
        "mixed": mixed(runtime, tokenizer, options.pairs),
        "tokens_a_second": drafting(runtime, tokenizer, max(options.pairs // 3, 1)),
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
