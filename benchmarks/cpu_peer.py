"""One library in one process, asked and timed: the worker of `cpu_decode.py`.

Reads JSON lines and answers each with one: `{"do": "prefill", "prompts": [[...], ...]}` begins
requests side by side and gives the seconds until each has a token; `{"do": "steps", "count": N}`
gives the seconds of so many steps of all of them; both give `tokens`, a list a request.
`{"do": "end"}` drops them. `{"do": "read"}` gives the bytes a second at which plain sums read a
buffer larger than any cache (ask it of a peer that has torch).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

CHUNK = 256
"""Rows of a request that transformers is given at once: its scores of a whole 4,096-token prompt
of 32 requests would take 17 GB."""
READ_BYTES = 512 << 20

Timed = tuple[list[float], list[list[int]]]
"""Seconds, and the tokens of each request."""


class Peer(Protocol):
    """Requests of one kind, that begin together."""

    def prefill(self, prompts: list[list[int]]) -> Timed:
        """Until each has its first token: one time."""
        ...

    def steps(self, count: int) -> Timed:
        """So many steps, each timed."""
        ...

    def end(self) -> None:
        """Drop the requests."""
        ...


class Lostwax:
    """The engine as it is served: scheduler, step building, replay, commit; no HTTP, and no prompt
    that is found in the cache."""

    def __init__(self, artifact: Path, checkpoint: Path, threads: int) -> None:
        from lostwax.backends.runtime.load import load
        from lostwax.server.engine.loop import EngineCore
        from lostwax.server.engine.options import EngineOptions

        runtime = load(artifact, checkpoint=checkpoint, threads=threads)
        self._core = EngineCore(runtime, EngineOptions(prefix_cache=False))
        self._core.warm_up()
        self._names: list[str] = []
        self._begun = 0

    def prefill(self, prompts: list[list[int]]) -> Timed:
        """Submitted one after another, stepped until all have answered."""
        from lostwax.server.engine.messages import Submit

        self._names = [f"r{self._begun + i}" for i in range(len(prompts))]
        self._begun += len(prompts)
        begin = time.perf_counter()
        for name, prompt in zip(self._names, prompts, strict=True):
            most = self._core.info.max_context - len(prompt)
            self._core.handle(Submit(request=name, prompt=prompt, max_tokens=most, ignore_eos=True))
        tokens: dict[str, list[int]] = {name: [] for name in self._names}
        while not all(tokens.values()):
            self._step(tokens)
        return [time.perf_counter() - begin], list(tokens.values())

    def steps(self, count: int) -> Timed:
        """Decode steps of all requests."""
        tokens: dict[str, list[int]] = {name: [] for name in self._names}
        seconds = list[float]()
        for _ in range(count):
            begin = time.perf_counter()
            self._step(tokens)
            seconds.append(time.perf_counter() - begin)
        return seconds, list(tokens.values())

    def _step(self, tokens: dict[str, list[int]]) -> None:
        from lostwax.server.engine.messages import Output

        for event in self._core.step():
            assert isinstance(event, Output), event
            tokens[event.request] += [t.token for t in event.tokens]

    def end(self) -> None:
        """Cancel them."""
        from lostwax.server.engine.messages import Cancel

        for name in self._names:
            self._core.handle(Cancel(request=name))
        while self._core.has_work:
            self._core.step()


class Transformers:
    """transformers in fp32 over what the weights mean, eager attention, with its cache; logits of
    last tokens only."""

    def __init__(self, checkpoint: Path, threads: int, compiled: bool) -> None:
        import torch
        from oracle import hf_model  # of tests/, where the parity tests have it from, too
        from transformers.utils import logging

        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self._torch = torch
        self._model: Any = hf_model(checkpoint)
        self._forward: Any = torch.compile(self._model, dynamic=True) if compiled else self._model
        self._cache: Any = None
        self._last: list[list[int]] = []

    def _run(self, ids: list[list[int]]) -> list[list[int]]:
        torch = self._torch
        with torch.inference_mode():
            out = self._forward(
                input_ids=torch.tensor(ids),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
            return out.logits[:, -1].argmax(-1, keepdim=True).tolist()

    def prefill(self, prompts: list[list[int]]) -> Timed:
        """In chunks of CHUNK rows a request where the prompt is longer than two of them."""
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self._model.config)
        length = len(prompts[0])
        chunk = length if length <= 2 * CHUNK else CHUNK
        begin = time.perf_counter()
        for first in range(0, length, chunk):
            self._last = self._run([p[first : first + chunk] for p in prompts])
        return [time.perf_counter() - begin], self._last

    def steps(self, count: int) -> Timed:
        """Decode steps of all requests."""
        seconds, tokens = list[float](), [list[int]() for _ in self._last]
        for _ in range(count):
            begin = time.perf_counter()
            self._last = self._run(self._last)
            seconds.append(time.perf_counter() - begin)
            for found, (token,) in zip(tokens, self._last, strict=True):
                found.append(token)
        return seconds, tokens

    def end(self) -> None:
        """Drop the cache."""
        self._cache = None


def read_rate() -> float:
    """Bytes a second of the best of three of torch's sums, on its threads."""
    import torch

    held = torch.ones(READ_BYTES // 4)
    best = 0.0
    for _ in range(3):
        begin = time.perf_counter()
        held.sum()
        best = max(best, READ_BYTES / (time.perf_counter() - begin))
    return best


def _peer(library: str, folder: Path, checkpoint: Path, threads: int) -> Peer:
    if library == "lostwax":
        return Lostwax(folder, checkpoint, threads)
    return Transformers(folder, threads, library == "compile")


def main() -> None:
    """Answer until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=("lostwax", "eager", "compile"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    peer = _peer(options.library, options.folder, options.checkpoint, options.threads)
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        match asked["do"]:
            case "prefill":
                answer["seconds"], answer["tokens"] = peer.prefill(asked["prompts"])
            case "steps":
                answer["seconds"], answer["tokens"] = peer.steps(asked["count"])
            case "end":
                peer.end()
            case "read":
                answer["bytes_per_second"] = read_rate()
            case other:
                raise ValueError(f"no such question: {other}")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
