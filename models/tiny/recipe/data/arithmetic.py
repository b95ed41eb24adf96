"""Sums, differences, products, quotients and short expressions in digits."""

from __future__ import annotations

from random import Random

from recipe.data.document import Document, Message, assistant, draw, with_system, worked
from recipe.data.working import work_out

_ASK = ("What is {}?", "Compute {}.", "Calculate {}", "{} = ?", "How much is {}?", "{}")


def arithmetic(rng: Random) -> Document:
    """One to three operations; every intermediate result is a whole number below 10,000."""
    shape = rng.choice((_one, _one, _chain, _bracket, _compare))
    return shape(rng)


def drill(rng: Random) -> Document:
    """A conversation of several short sums: many results in few tokens."""
    messages: list[Message] = []
    for _ in range(rng.randint(4, 12)):
        turns = draw(_one, rng, held_out=False).messages  # no question that is held out elsewhere
        messages += [m for m in turns if m["role"] == "user"]
        messages += [assistant(_spoken(turns[-1]))]
    return Document("drill", with_system(rng, messages), splits=False)


def _spoken(answer: Message) -> str:
    """Steps and answer without reasoning apart, which later turns would hide."""
    steps = answer.get("reasoning_content", "")
    return f"{steps}\n{answer['content']}" if steps else answer["content"]


def _one(rng: Random) -> Document:
    expression, step, result = _operation(rng)
    return _answer(rng, "arith-1", expression, [step], result)


def _operation(rng: Random) -> tuple[str, str, int]:
    sign = rng.choice("++--*/")
    if sign == "+":
        a, b = _number(rng), _number(rng)
        result = a + b
    elif sign == "-":
        b, a = sorted((_number(rng), _number(rng)))
        result = a - b
    elif sign == "*":
        a, b = rng.randint(2, 12), rng.randint(2, 99)
        if rng.random() < 0.5:
            a, b = b, a
        result = a * b
    else:
        b, result = rng.randint(2, 12), rng.randint(2, 99)
        a = b * result
    return f"{a} {sign} {b}", work_out(a, sign, b), result


def _number(rng: Random) -> int:
    return rng.randint(1, 10 ** rng.choice((1, 2, 2, 3, 3)) - 1)


def _chain(rng: Random) -> Document:
    """Left to right: a + b - c …"""
    total = _number(rng)
    text, steps = str(total), list[str]()
    for _ in range(rng.randint(2, 3)):
        b = _number(rng)
        minus = b <= total and rng.random() < 0.5
        result = total - b if minus else total + b
        sign = "-" if minus else "+"
        steps.append(work_out(total, sign, b))
        text, total = f"{text} {sign} {b}", result
    return _answer(rng, "arith-2", text, steps, total)


def _bracket(rng: Random) -> Document:
    a, b, c = rng.randint(1, 49), rng.randint(1, 49), rng.randint(2, 9)
    if rng.random() < 0.5:
        steps = [work_out(a, "+", b), work_out(a + b, "*", c)]
        return _answer(rng, "arith-2", f"({a} + {b}) * {c}", steps, (a + b) * c)
    steps = [work_out(b, "*", c), work_out(a, "+", b * c)]
    return _answer(rng, "arith-2", f"{a} + {b} * {c}", steps, a + b * c)


def _answer(rng: Random, kind: str, text: str, steps: list[str], result: int) -> Document:
    return worked(rng, kind, rng.choice(_ASK).format(text), steps, f"The answer is {result}.")


def _compare(rng: Random) -> Document:
    a, b = _number(rng), _number(rng)
    while a == b:
        b = _number(rng)
    word = rng.choice(("larger", "smaller"))
    best = max(a, b) if word == "larger" else min(a, b)
    sign = ">" if a > b else "<"
    question = f"Which number is {word}, {a} or {b}?"
    return worked(rng, "arith-1", question, [f"{a} {sign} {b}"], f"The {word} number is {best}.")
