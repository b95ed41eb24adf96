"""Long texts with something to find: records by key, and sentences hidden in filler.

Lengths are given in tokens of the tiny tokenizer; `count` is the only thing asked of it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from recipe.data.document import Document, Message, assistant, user
from recipe.data.words import ADJECTIVES, CITIES, COLORS, JOBS, NAMES, NOUNS

Count = Callable[[str], int]
OVERHEAD = 40  # tokens of marks, question and answer of the first turn
TURN = 34  # tokens of each further question and its answer


def key_values(rng: Random, tokens: int, count: Count, most: int = 8) -> Document:
    """Records `key: value`, and questions about at most `most` of them."""
    keys: dict[str, str] = {}
    turns = rng.randint(1, most)
    room = max(tokens - OVERHEAD - TURN * (turns - 1), 24)
    lines: list[str] = []
    while room > 0:
        key = f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
        if key in keys:
            continue
        value = _value(rng)
        line = f"{key}: {value}"
        room -= count(line) + 1
        if room > 0 or not keys:
            keys[key] = value
            lines.append(line)
    asked = rng.sample(list(keys), min(turns, len(keys)))
    pairs = [
        (f"What is the value of {key}?", f"The value of {key} is {keys[key]}.") for key in asked
    ]
    return _conversation("kv", "Here are some records.\n" + "\n".join(lines), pairs)


def _value(rng: Random) -> str:
    if rng.random() < 0.5:
        return str(rng.randint(100, 99999))
    return f"{rng.choice(COLORS)} {rng.choice(NOUNS)}"


_FILLER = (
    "{p} walked to the {n} and looked at the {a} {m}.",
    "The {a} {n} in {c} was closed for the day.",
    "Nobody knew why the {n} near the {m} was so {a}.",
    "{p} and {q} talked about the {n} for a long time.",
    "A {j} from {c} came to see the {a} {n}.",
    "In the evening {p} wrote a letter about the {m}.",
    "It was a {a} morning and the {n} was {b}.",
    "{p} wanted to buy a {b} {n} in {c}.",
)


def needle(rng: Random, tokens: int, count: Count) -> Document:
    """One to three sentences with a secret number, hidden in filler, and questions about them."""
    number = rng.randint(1, 3)
    places = rng.sample([(a, n) for a in ADJECTIVES for n in NOUNS], number)
    facts = [(f"{a} {n}", str(rng.randint(1000, 99999))) for a, n in places]
    hidden = [f"The secret code of the {place} is {code}." for place, code in facts]
    room = max(tokens - OVERHEAD - TURN * (number - 1) - sum(map(count, hidden)), 24)
    lines: list[str] = []
    while room > 0:
        line = _filler(rng)
        room -= count(f"{line} ")
        if room > 0:
            lines.append(line)
    for sentence in hidden:
        lines.insert(rng.randint(0, len(lines)), sentence)
    pairs = [
        (f"What is the secret code of the {place}?", f"The secret code of the {place} is {code}.")
        for place, code in rng.sample(facts, number)
    ]
    return _conversation("needle", " ".join(lines), pairs)


def _filler(rng: Random) -> str:
    p, q = rng.sample(NAMES, 2)
    n, m = rng.sample(NOUNS, 2)
    a, b = rng.sample(ADJECTIVES, 2)
    fill = {"p": p, "q": q, "n": n, "m": m, "a": a, "b": b}
    return rng.choice(_FILLER).format(c=rng.choice(CITIES), j=rng.choice(JOBS), **fill)


def _conversation(kind: str, text: str, pairs: list[tuple[str, str]]) -> Document:
    messages: list[Message] = []
    for number, (question, answer) in enumerate(pairs):
        asked = f"{text}\n\n{question}" if number == 0 else question
        messages += [user(asked), assistant(answer)]
    return Document(kind, tuple(messages))
