"""Writes the held-out documents as task files for `lostwax eval`, one file a set.

    PYTHONPATH=src:models/tiny python -m recipe.write_tasks

An example asks for one turn, with the right turns before it as they stand in the document: the last
turn, and of conversations with tools every one. To be run again when data or tokenizer change.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lostwax.server.formats.encoding_v32 import EOS, encode_messages
from recipe.data.document import Document, Message
from recipe.data.mixture import LONG_KINDS, evaluation_sets
from recipe.held_out import held_out_documents
from recipe.packing import Encoder

HERE = Path(__file__).parents[1]
SEED = 11  # not the trainer's: its reports and these files are two samples
EXAMPLES = 96
EXAMPLES_BY_TOKENS = {256: 96, 1024: 64, 2048: 48, 4096: 32}  # all files stay below 2.5 MB
TOOL_DOCUMENTS = 64  # of one or two examples each


def set_names(encoder: Encoder) -> list[str]:
    """The names of all sets."""
    return list(evaluation_sets(encoder.count))


def num_documents(name: str) -> int:
    """How many documents a set in the repository is of."""
    kind, _, length = name.partition("_")
    if name == "tools":
        return TOOL_DOCUMENTS
    return EXAMPLES_BY_TOKENS[int(length)] if kind in LONG_KINDS else EXAMPLES


def examples(encoder: Encoder, name: str, documents: int) -> Iterator[dict[str, Any]]:
    """The lines of one task file; those of fewer documents are the first of them."""
    number = 0
    for document in held_out_documents(encoder, name, documents, SEED):
        for place in _asked(document, every=name == "tools"):
            yield {"id": f"{name}-{number}", **_example(name, document, place)}
            number += 1


def _asked(document: Document, *, every: bool) -> list[int]:
    places = [n for n, m in enumerate(document.messages) if m["role"] == "assistant"]
    return places if every else places[-1:]


def _example(name: str, document: Document, place: int) -> dict[str, Any]:
    before, turn = document.messages[:place], document.messages[place]
    prompt = encode_messages(before, document.mode)
    whole = encode_messages(document.messages[: place + 1], document.mode)
    kind, reference = _reference(name, document, turn)
    return {
        "kind": kind,
        "thinking": document.mode == "thinking",
        "messages": before,
        "reference": reference,
        "completion": whole.removeprefix(prompt).removesuffix(EOS),
    }


def _reference(name: str, document: Document, turn: Message) -> tuple[str, Any]:
    content = str(turn["content"])
    if name == "tools":
        functions = [call["function"] for call in turn.get("tool_calls", ())]
        return "tools", {"calls": functions} | ({} if functions else {"content": content})
    if name == "json":
        return "json", {"schema": _schema(document), "value": json.loads(content)}
    if name == "chat" or name.startswith(LONG_KINDS):
        return "exact", {"text": content}
    return "last_line", {"text": content.splitlines()[-1]}


def _schema(document: Document) -> Any:
    """Of the system message, or of the question's first line."""
    first = document.messages[0]
    if "response_format" in first:
        return first["response_format"]
    return json.loads(str(first["content"]).splitlines()[0].split(": ", 1)[1])


def file_bytes(encoder: Encoder, name: str, documents: int | None = None) -> bytes:
    """The task file of a set (default: as it lies in the repository)."""
    found = examples(encoder, name, num_documents(name) if documents is None else documents)
    lines = (json.dumps(example, ensure_ascii=False) for example in found)
    return "".join(f"{line}\n" for line in lines).encode()


def main() -> None:
    """Write every set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "weights", help="tokenizer.json")
    parser.add_argument("--out", type=Path, default=HERE / "tasks")
    parser.add_argument("--documents", type=int, help="of each set (default: as in tasks/)")
    args = parser.parse_args()
    encoder = Encoder(args.model / "tokenizer.json")
    args.out.mkdir(parents=True, exist_ok=True)
    total = 0
    for name in set_names(encoder):
        written = file_bytes(encoder, name, args.documents)
        (args.out / f"{name}.jsonl").write_bytes(written)
        total += len(written)
        number = len(written.splitlines())
        print(f"{name}: {number} examples, {len(written) / 1e3:.0f} kB", flush=True)
    print(f"{total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
