"""Whether one request's way to sample costs its neighbours anything, and what drafting gains.

`python benchmarks/mixed_batch.py ARTIFACT --checkpoint DIR --out FILE` runs, in interleaved pairs,
three greedy requests beside a fourth that is greedy or has top_p 0.95: their tokens, steps and
accepted drafts must be equal, their rates are printed. Then tokens a second without drafts and with
as many as the artifact verifies, at 1 and 8 requests. Prompts are text of the tiny model's tasks,
and run whole: they begin alike.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from tokenizers import Tokenizer

from lostwax.backends.runtime.load import Runtime, load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions

TEXT = "Once upon a time there was a small boat on a wide river, and its captain was called "
NAMES = ("Ada", "Ben", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hope")
TOKENS = 160


@dataclass
class Outcome:
    """What some requests of a batch got, step by step."""

    seconds: float
    accepted: int
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
    found = Outcome(0.0, 0, {submit.request: [] for submit in submits})
    begin = time.perf_counter()
    while core.has_work:
        for event in core.step():
            assert not isinstance(event, Failed), event
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
    """The three greedy requests beside either fourth one."""
    drafts = runtime.limits.max_drafts
    greedy = requests(tokenizer, 4)
    nucleus = requests(tokenizer, 4, temperature=1.0, top_p=0.95, seed=7)
    rates: list[float] = []
    equal = True
    for pair in range(pairs):
        both = [greedy, nucleus] if pair % 2 else [nucleus, greedy]
        outcomes = [run(runtime, submits, drafts) for submits in both]
        plain, sampled = outcomes if pair % 2 else reversed(outcomes)
        equal &= plain.of(NAMES[:3]) == sampled.of(NAMES[:3])
        # The fourth request's own answer has another length in steps: compare time a step.
        steps = [max(len(s) for s in o.tokens.values()) for o in (plain, sampled)]
        rates.append((plain.seconds / steps[0]) / (sampled.seconds / steps[1]))
    return {
        "three_greedy_requests_equal": equal,
        "rate_beside_top_p_of_beside_greedy": round(median(rates), 4),
        "pairs": pairs,
    }


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
    run(runtime, requests(tokenizer, 4), runtime.limits.max_drafts)  # binds and captures
    report = {
        "command": "python benchmarks/mixed_batch.py",
        "artifact": runtime.manifest.digest,
        "target": runtime.manifest.target.name,
        "mixed": mixed(runtime, tokenizer, options.pairs),
        "tokens_a_second": drafting(runtime, tokenizer, max(options.pairs // 3, 1)),
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
