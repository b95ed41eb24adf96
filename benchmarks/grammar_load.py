"""What answers that follow grammars cost: a step's time in a crowd without, with one for all, and
with one each.

    python benchmarks/grammar_load.py ARTIFACT --checkpoint models/tiny/weights --out FILE

All grammars are compiled before: an artifact's folder has the tokenizer. Answers are sums of the
trained tiny model, as JSON of a schema where they follow one; every one that ended by itself is
held to its schema. The ways run in turn, several times; counted are the steps in which all have a
token.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from lostwax.backends.runtime.load import Runtime, load
from lostwax.ir.contract.masks import num_masks
from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoding_v32 import EOS, encode_pieces
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.tokenizer_file import load_codec
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammars import Grammars

WAYS = ("none", "one", "each")
MAX_TOKENS = 200
FREE_TOKENS = 60
"""As many as an answer of a schema has."""


def schema(number: int) -> dict[str, Any]:
    """One of many that differ in a name, so that none is another's grammar."""
    properties = {
        f"answer_{number}": {"type": "integer", "minimum": -(10**6), "maximum": 10**6},
        "unit": {"enum": ["apples", "pears"]},
        "why": {"type": "array", "items": {"type": "boolean"}, "maxItems": 12, "minItems": 12},
    }
    wanted = list(properties)
    whole = {"type": "object", "properties": properties, "required": wanted}
    return {**whole, "additionalProperties": False}


def _submit(name: str, prompt: list[int], grammar: Grammar | None) -> Submit:
    if grammar is None:  # its answer is short: it goes on, so that as many are in each step
        return Submit(request=name, prompt=prompt, max_tokens=FREE_TOKENS, ignore_eos=True)
    return Submit(request=name, prompt=prompt, max_tokens=MAX_TOKENS, grammar=grammar)


def submits(codec: Codec, count: int, way: str) -> list[tuple[Submit, dict[str, Any] | None]]:
    """Requests, with the schema that each is held to."""
    found: list[tuple[Submit, dict[str, Any] | None]] = []
    for i in range(count):
        messages = [{"role": "user", "content": f"What is {17 + i} + {25 + 3 * i}?"}]
        held = None if way == "none" else schema(0 if way == "one" else i)
        grammar = None if held is None else Grammar("json_schema", json.dumps(held))
        prompt = codec.encode_pieces(encode_pieces(messages, "chat"))
        found.append((_submit(f"{i}", prompt, grammar), held))
    return found


def run(
    runtime: Runtime, grammars: Grammars, codec: Codec, asked: list[Any], drafts: int
) -> dict[str, Any]:
    """Median milliseconds between steps, and how many answers were right, cut or wrong."""
    options = EngineOptions(max_drafts=drafts, prefix_cache=False)
    core = EngineCore(runtime, options, depth=int(runtime.overlaps), grammars=grammars)
    core.warm_up()
    tokens: dict[str, list[int]] = {submit.request: [] for submit, _ in asked}
    for submit, _ in asked:
        assert core.handle(submit) == []
    waits, last = list[float](), 0.0
    while core.has_work:
        num_told = 0
        for event in core.step():
            assert isinstance(event, Output), event
            tokens[event.request] += [score.token for score in event.tokens]
            num_told += bool(event.tokens)
        now = time.perf_counter()
        if num_told == len(asked) and last:
            waits.append(now - last)
        last = now if num_told == len(asked) else 0.0
    end, counts = codec.marks[EOS], {"valid": 0, "cut": 0, "wrong": 0}
    for submit, held in asked:
        if held is not None:
            ids = tokens[submit.request]
            text = codec.decode(ids[:-1])
            is_valid = ids[-1] == end and Draft202012Validator(held).is_valid(json.loads(text))
            counts["cut" if ids[-1] != end else "valid" if is_valid else "wrong"] += 1
    return {"steps": len(waits), "step_ms": 1e3 * statistics.median(waits), **counts}


def main() -> None:
    """Load, measure each way in turn, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--answers", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--drafts", type=int, nargs="*", default=[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runtime = load(options.artifact, checkpoint=options.checkpoint)
    runtime.choose_threads()
    limits, codec = runtime.limits, load_codec(options.artifact)
    most = num_masks(limits.max_reqs, limits.max_drafts)
    end = runtime.facts.eos_token_ids[0]
    grammars = Grammars([options.artifact], limits.vocab_size, end, most, log=FailureLog())
    rows: list[dict[str, Any]] = []
    for drafts in options.drafts:
        for count in options.answers:
            asked = {way: submits(codec, count, way) for way in WAYS}
            for way in WAYS:  # compiles
                run(runtime, grammars, codec, asked[way], drafts)
            found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
            for _ in range(options.runs):
                for way in WAYS:
                    found[way].append(run(runtime, grammars, codec, asked[way], drafts))
            for way, its in found.items():
                median = statistics.median(each["step_ms"] for each in its)
                row = {"drafts": drafts, "answers": count, "grammars": way, **its[-1]}
                rows.append(row | {"step_ms": round(median, 3)})
                print(rows[-1], flush=True)
    grammars.stop()
    report = {
        "command": " ".join(["python", "benchmarks/grammar_load.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "target": runtime.manifest.target.name,
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
