"""Compiles a checkpoint and asks the artifact task files, as `lostwax eval` does.

For benchmarks: gateway and engine in this process, greedy, prompts by the model's own encoding.
Knows no table.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.sizes import Sizes
from lostwax.evals.connect import in_process
from lostwax.evals.run import Runner
from lostwax.evals.samples import Sample
from lostwax.evals.send import Patience, Sender
from lostwax.evals.task import Chat, Sampling, Task
from lostwax.evals.task_file import read_task
from lostwax.frontend.capture import Captured
from lostwax.server.formats.encoding_v32 import encode_messages

TINY = Path(__file__).parents[1] / "models" / "tiny"
ANSWER_TOKENS = 384
SIZES = Sizes(max_context=4096 + ANSWER_TOKENS, max_tokens=1024, max_reqs=8, max_score_rows=64)
Samples = dict[str, dict[str, Sample]]
"""By task, then by example."""


@dataclass(frozen=True, slots=True)
class Share:
    """How much of each task is asked: its first examples, fewer where they are long.

    At most `examples`, and about `tokens` tokens of prompts; two at least.
    """

    examples: int
    tokens: int

    def of(self, task: Task, tokenizer: Tokenizer) -> Task:
        """The task with fewer examples."""
        length = max(len(tokenizer.encode(text).ids) for text in prompts(task, 4))
        count = max(min(self.examples, self.tokens // length), 2)
        return replace(task, examples=task.examples[:count])


def prompts(task: Task, count: int | None = None) -> Iterator[str]:
    """The rendered prompts of the first examples."""
    for example in task.examples[:count]:
        request = example.request
        if isinstance(request, Chat):
            mode = "thinking" if request.thinking else "chat"
            yield encode_messages(request.messages, mode)
        else:
            yield request.prompt


def tasks(folder: Path, kinds: Sequence[str], share: Share, tokenizer: Path) -> list[Task]:
    """The tasks whose names begin with one of `kinds`, the longest texts last."""
    read = Tokenizer.from_file(str(tokenizer))
    paths = (path for path in folder.glob("*.jsonl") if path.stem.startswith(tuple(kinds)))
    found = [read_task(path) for path in paths]
    if not found:
        raise SystemExit(f"{folder} holds no task of {', '.join(kinds)}; see recipe/write_tasks.py")
    chosen = [share.of(task, read) for task in found]
    return sorted(chosen, key=lambda t: (max(map(len, prompts(t, 4))), t.name))


def copy_checkpoint(checkpoint: Path, out: Path) -> str:
    """A copy, so that all of a measurement is of the same weights; their digest."""
    shutil.copytree(checkpoint, out, copy_function=shutil.copyfile)
    found = hashlib.sha256()
    for path in sorted(out.iterdir()):
        found.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def compile_for_tasks(
    captured: Captured, checkpoint: Path, out: Path, dtype: str, formats: Formats, *,
    drafts: int = 0, target: str = "cpu",
) -> int:  # fmt: skip
    """An artifact that takes the longest task; bytes of its caches a token. dtype: f32 or bf16."""
    sizes = replace(SIZES, max_drafts=drafts)
    options = CompileOptions(dtype=dtype, formats=formats, sizes=sizes)
    parts = (captured.module, captured.facts, captured.weights)
    tokenizer = (checkpoint / "tokenizer.json").read_bytes()
    manifest = compile_module(*parts, target, out, options, tokenizer)
    return sum(p.page_bytes // p.page_tokens * p.layers for p in manifest.planes)


def ask(artifact: Path, checkpoint: Path, wanted: Sequence[Task]) -> Samples:
    """The graded answers; a request without one is an error."""
    return asyncio.run(_ask(artifact, checkpoint, wanted))


async def _ask(artifact: Path, checkpoint: Path, wanted: Sequence[Task]) -> Samples:
    sampling, samples = Sampling(max_tokens=ANSWER_TOKENS), Samples()
    # Prompts share their shots: run whole, no answer depends on which was asked before.
    serving = in_process(artifact, checkpoint=checkpoint, threads=1, prefix_cache=False)
    async with serving as served:
        sender = Sender(served.http, Patience(3600, 0))
        runner = Runner(sender, served.model, "completions", concurrency=SIZES.max_reqs)
        for task in wanted:
            outcome = await runner.run(task, sampling, None)
            if outcome.failures:
                first = outcome.failures[0]
                raise RuntimeError(f"{task.name}: {first.id} got no answer: {first.fault}")
            samples[task.name] = {sample.id: sample for sample in outcome.samples}
    return samples


def share_right(samples: dict[str, Sample]) -> float:
    """Accuracy of one task."""
    return sum(sample.grade.correct for sample in samples.values()) / len(samples)


def num_changed(samples: dict[str, Sample], base: dict[str, Sample]) -> int:
    """Answers whose text is another than the baseline's."""
    return sum(sample.answer.text != base[id_].answer.text for id_, sample in samples.items())
