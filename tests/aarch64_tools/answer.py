"""Answers prompts greedily with an artifact for the CPU; prints the tokens as JSON.

Each kernel has passed its golden probes in this process before.
`answer.py ARTIFACT CHECKPOINT CERTIFICATES NEW PROMPTS`: PROMPTS are lists of ids as JSON, NEW is
how many tokens each answer has. Run by the tests marked `aarch64` here and under emulation.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

from lostwax.backends.cpu import BACKEND
from lostwax.backends.registry import backends
from lostwax.backends.runtime.boot_check import Admission
from lostwax.backends.runtime.load import load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit


def main() -> None:
    """Load, prove, answer all prompts at once."""
    artifact, checkpoint, certificates = map(Path, sys.argv[1:4])
    said: list[str] = []
    runtime = load(
        artifact,
        checkpoint=checkpoint,
        num_pages=16,
        threads=2,
        admission=Admission(certificates, allow_compiled=False, say=said.append),
        # lostwax is not installed in the emulated environment
        extra_backends=() if BACKEND.name in backends() else (BACKEND,),
    )
    core = EngineCore(runtime)
    prompts: list[list[int]] = json.loads(sys.argv[5])
    for i, prompt in enumerate(prompts):
        new = int(sys.argv[4])
        core.handle(Submit(request=str(i), prompt=prompt, max_tokens=new, ignore_eos=True))
    tokens: dict[str, list[int]] = {str(i): [] for i in range(len(prompts))}
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output), event
            tokens[event.request] += [score.token for score in event.tokens]
    print(json.dumps({"machine": platform.machine(), "said": said, "tokens": tokens}))


if __name__ == "__main__":
    main()
