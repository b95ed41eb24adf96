"""Sums, differences, products, quotients and short expressions in digits."""

from __future__ import annotations

from random import Random

from recipe.data.document import Document, worked

_ASK = ("What is {}?", "Compute {}.", "Calculate {}", "{} = ?", "How much is {}?", "{}")


def arithmetic(rng: Random) -> Document:
    """One to three operations; every intermediate result is a whole number below 10,000."""
    shape = rng.choice((_one, _one, _chain, _bracket, _compare))
    return shape(rng)


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
    text = f"{a} {sign} {b}"
    return text, f"{text} = {result}", result


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
        steps.append(f"{total} {sign} {b} = {result}")
        text, total = f"{text} {sign} {b}", result
    return _answer(rng, "arith-2", text, steps, total)


def _bracket(rng: Random) -> Document:
    a, b, c = rng.randint(1, 49), rng.randint(1, 49), rng.randint(2, 9)
    if rng.random() < 0.5:
        steps = [f"{a} + {b} = {a + b}", f"{a + b} * {c} = {(a + b) * c}"]
        return _answer(rng, "arith-2", f"({a} + {b}) * {c}", steps, (a + b) * c)
    steps = [f"{b} * {c} = {b * c}", f"{a} + {b * c} = {a + b * c}"]
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
