"""Makes and reads the tiny tokenizer: byte-level BPE with DeepSeek's special tokens.

A word is split alike after a space, a quote and a bracket: the space is a piece of its own, except
before a few frequent words that nothing ever has to copy. Digits are single. Knows no document.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from recipe.data.document import draw
from recipe.data.mixture import mixture

VOCAB = 4096
BOS_ID, EOS_ID, PAD_ID = 0, 1, 2
# `special` tokens are left out of decoded text, the others are read by parsers; as DeepSeek's own.
SPECIAL = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")  # noqa: RUF001
MARKS = (
    "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>",  # noqa: RUF001
    "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>",  # noqa: RUF001
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",  # noqa: RUF001
    "<｜tool▁call▁end｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>",  # noqa: RUF001
    "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>", "<｜tool▁sep｜>",  # noqa: RUF001
)  # fmt: skip
FREQUENT = (
    "a able about after all also am an and any are as at be because been before but by can could "
    "did do does each every for from get gets had has have he her him his how i if in into is it "
    "its just many more most much my no not now of off on one only or other our out over per she "
    "should so some than that the their them then there these they this to too up us use used was "
    "we were what when where which while who will with would you your"
).split()
_WORDS = "|".join(FREQUENT)
PIECES = (
    r"\p{N}"  # digits one by one
    rf"| (?:{_WORDS})(?!\p{{L}})"  # a frequent word with its space
    r"|\p{L}+"
    r"|(?: ?[^\p{L}\p{N} \n])+ ?"  # punctuation with the spaces around it: `": "`, ` = `
    r"| "
    r"|\n+"
)


def train(texts: Iterator[str]) -> Tokenizer:
    """A tokenizer of VOCAB tokens over these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[*SPECIAL, *MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made = Tokenizer.from_str(_marks_unspecial(tokenizer.to_str()))
    if made.get_vocab_size() != VOCAB:
        raise ValueError(f"the texts gave {made.get_vocab_size()} tokens of {VOCAB}; give more")
    return made


def _marks_unspecial(text: str) -> str:
    raw = json.loads(text)
    for token in raw["added_tokens"]:
        token["special"] = token["content"] in SPECIAL
    return json.dumps(raw, ensure_ascii=False)


def texts(gsm8k: Path, documents: int, seed: int) -> Iterator[str]:
    """Text of training documents, with all GSM8K questions for the words of plain English."""
    rng, draws = Random(seed), mixture(lambda text: len(text) // 3, 2048, gsm8k)
    for _ in range(documents):
        for piece, _ in draw(draws, rng, held_out=False).segments():
            yield piece
    for line in gsm8k.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["question"] + "\n" + row["answer"]


def main() -> None:
    """Train on this CPU and write `tokenizer.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gsm8k", type=Path, required=True, help="train.jsonl of GSM8K")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train(texts(args.gsm8k, args.documents, args.seed)).save(str(args.out))


if __name__ == "__main__":
    main()
