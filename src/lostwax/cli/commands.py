"""What the commands are called, what each is for, and how it is used. Imports none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One command: a sentence for `lostwax --help`, examples for its own `--help`."""

    purpose: str
    examples: tuple[str, ...]


COMMANDS = {
    "compile": Command(
        "Compile a checkpoint into an artifact for one target.",
        (
            "lostwax compile CHECKPOINT --max-context 4096 -o model.lostwax",
            "lostwax compile CHECKPOINT --target cuda-sm90a --drafts 1 -o model.lostwax",
        ),
    ),
    "run": Command(
        "Chat with a model in the terminal.",
        (
            "lostwax run",
            "lostwax run model.lostwax --thinking",
            'echo "What is 17 + 25?" | lostwax run --url http://127.0.0.1:8000',
        ),
    ),
    "serve": Command(
        "Serve an artifact, a checkpoint or the default model.",
        (
            "lostwax serve",
            "lostwax serve model.lostwax --port 9000 --num-pages 4096",
        ),
    ),
    "migrate": Command(
        "Say the command of SGLang's or vLLM's server in ours.",
        (
            "lostwax migrate 'vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8'",
            "lostwax migrate - < launch.sh",
        ),
    ),
    "config": Command(
        "The options of serve as they will be, and where each comes from.",
        ("lostwax config show --origin",),
    ),
    "eval": Command(
        "Ask a model the examples of tasks, grade its answers.",
        (
            "lostwax eval --tasks tools,json --limit 32",
            "lostwax eval tasks.jsonl --url http://127.0.0.1:8000 --out results",
        ),
    ),
    "bench serve": Command(
        "Measure a server's latency and throughput under load.",
        (
            "lostwax bench serve --url http://127.0.0.1:8000",
            "lostwax bench serve --url http://HOST --max-concurrency 1,8,64 --out DIR",
        ),
    ),
    "chat encode": Command(
        "The prompt of a chat: messages and tools in, text out.",
        (
            "lostwax chat encode --thinking < request.json",
            "lostwax chat encode --json --tokenizer CHECKPOINT < request.json",
        ),
    ),
    "chat parse": Command(
        "What an answer's text means: reasoning, content, tool calls.",
        (
            "lostwax chat parse --thinking < answer.txt",
            "lostwax chat parse --stream --tools tools.json < answer.txt",
        ),
    ),
    "explain": Command(
        "What was chosen for each op, what lost and why.",
        (
            "lostwax explain model.lostwax",
            "lostwax explain model.lostwax dsa.topk --segment decode",
        ),
    ),
    "certify": Command(
        "Each lowering beside the fp64 reference, on this device.",
        ("lostwax certify model.lostwax", "lostwax certify model.lostwax --interpret -o records/"),
    ),
    "verify": Command(
        "Whether an artifact's files and its checkpoint are whole.",
        ("lostwax verify model.lostwax", "lostwax verify model.lostwax --checkpoint CHECKPOINT"),
    ),
    "plan": Command(
        "The memory of each rank, before anything is booted.",
        ("lostwax plan model.lostwax --num-pages 4096", "lostwax plan CHECKPOINT --target null"),
    ),
    "doctor": Command(
        "What each target lacks on this machine, and the fix.",
        ("lostwax doctor", "lostwax doctor cuda-sm90a"),
    ),
    "bring-up": Command(
        "Check a device and write a report to send back.",
        ("lostwax bring-up cpu -o report", "lostwax bring-up rocm-gfx942 -o report"),
    ),
    "records add": Command(
        "File the report of a bring-up in a record store.",
        ("lostwax records add report -o records",),
    ),
    "container": Command(
        "Write a Dockerfile for a target, and how to run it.",
        (
            "lostwax container cuda-h200 -o image",
            "lostwax container cpu --artifact model.lostwax -o image",
        ),
    ),
    "export": Command(
        "Write a graph of an artifact as an ONNX model.",
        ("lostwax export model.lostwax --onnx -o model.onnx",),
    ),
    "opt": Command(
        "Run passes over a module's text.",
        (
            "lostwax opt --list-passes",
            "lostwax opt FILE.mlir --passes 'specialise{segment=decode},clean-up'",
        ),
    ),
    "new-checkpoint": Command(
        "Write a random checkpoint in the official format.",
        ("lostwax new-checkpoint --config examples/tiny.json -o checkpoint",),
    ),
    "completion": Command(
        "Print a script that completes commands in a shell.",
        ("source <(lostwax completion bash)",),
    ),
}
GROUPS = {
    "bench": "Measure latency and throughput: bench serve.",
    "records": "What was proven on devices: records add.",
    "chat": "Prompts and answers as text: chat encode, chat parse.",
}
"""The first words of commands that have two."""


def named(words: Sequence[str]) -> str | None:
    """The command that a command line begins with."""
    found = (" ".join(words[:count]) for count in (2, 1))
    return next((name for name in found if name in COMMANDS), None)
