"""One library in one process, timed on request: the worker of `cpu_decode.py`.

Reads JSON lines `{"prompt": [...], "new": N}` and answers `{"seconds": [...], "tokens": [...]}`:
the seconds of the prefill and of each decode step, and the greedy tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Measure = Callable[[list[int], int], tuple[list[float], list[int]]]


def lostwax_peer(artifact: Path, threads: int) -> Measure:
    """The engine as it is served: scheduler, step building, replay, commit; no HTTP, and no prompt
    that is found in the cache."""
    from lostwax.backends.runtime.load import load
    from lostwax.server.engine.loop import EngineCore
    from lostwax.server.engine.messages import Output, Submit
    from lostwax.server.engine.options import EngineOptions

    core = EngineCore(load(artifact, threads=threads), EngineOptions(prefix_cache=False))
    core.warm_up()
    count = iter(range(1 << 30))

    def measure(prompt: list[int], new: int) -> tuple[list[float], list[int]]:
        name = f"r{next(count)}"
        core.handle(Submit(request=name, prompt=prompt, max_tokens=new, ignore_eos=True))
        seconds, tokens = list[float](), list[int]()
        while core.has_work:
            begin = time.perf_counter()
            events = core.step()
            seconds.append(time.perf_counter() - begin)
            for event in events:
                assert isinstance(event, Output), event
                tokens += [t.token for t in event.tokens]
        return seconds, tokens

    return measure


def transformers_peer(checkpoint: Path, threads: int, compiled: bool) -> Measure:
    """transformers in fp32, eager attention, with its cache; logits of the last token only."""
    import torch
    from transformers import DeepseekV32ForCausalLM, DynamicCache
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    model: Any = DeepseekV32ForCausalLM.from_pretrained(
        checkpoint, attn_implementation="eager", dtype=torch.float32
    ).eval()
    forward: Any = torch.compile(model, dynamic=True) if compiled else model

    def step(ids: list[int], cache: Any) -> int:
        out = forward(
            input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return int(out.logits[0, -1].argmax())

    def measure(prompt: list[int], new: int) -> tuple[list[float], list[int]]:
        cache, ids = DynamicCache(config=model.config), prompt
        seconds, tokens = list[float](), list[int]()
        with torch.inference_mode():
            for _ in range(new):
                begin = time.perf_counter()
                tokens.append(step(ids, cache))
                seconds.append(time.perf_counter() - begin)
                ids = tokens[-1:]
        return seconds, tokens

    return measure


def main() -> None:
    """Answer requests until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=("lostwax", "eager", "compile"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    if options.library == "lostwax":
        measure = lostwax_peer(options.folder, options.threads)
    else:
        compiled = options.library == "compile"
        measure = transformers_peer(options.folder, options.threads, compiled)
    print("{}", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds, tokens = measure(request["prompt"], request["new"])
        print(json.dumps({"seconds": seconds, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main()
