"""Arithmetic worked out place by place, so that no step asks for more than one digit's table.

A small model learns `449 + 287 = 649 + 87 = 729 + 7 = 736` from far fewer examples than the bare
result, because every link of the chain changes one place.
"""

from __future__ import annotations


def places(n: int) -> list[int]:
    """287 → [200, 80, 7]; zeros are left out."""
    digits = str(n)
    return [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits) if d != "0"]


def work_out(a: int, sign: str, b: int) -> str:
    """`a sign b = … = result`. Differences must not be negative, quotients must be whole.

    Of a product or quotient one number is a factor of at most 12 or a round one (a digit and
    zeros): the tables that the model learns by heart.
    """
    text = f"{a} {sign} {b}"
    if sign == "+":
        return " = ".join([text, *_sums([a, *places(b)])])
    if sign == "-":
        return " = ".join([text, *_differences(a, places(b))])
    if sign == "*":
        return " = ".join([text, *_products(a, b)])
    return " = ".join([text, *_quotients(a, b)])


def _sums(terms: list[int]) -> list[str]:
    """Links after `a + b`: the largest place of the second number is added first."""
    links: list[str] = []
    first, rest = terms[0], terms[1:]
    while rest:
        first, rest = first + rest[0], rest[1:]
        links.append(f"{first} + {sum(rest)}" if rest else str(first))
    return links


def _differences(first: int, parts: list[int]) -> list[str]:
    links: list[str] = []
    while parts:
        first, parts = first - parts[0], parts[1:]
        links.append(f"{first} - {sum(parts)}" if parts else str(first))
    return links


def _known(n: int) -> bool:
    return n <= 12 or len(places(n)) == 1


def _products(a: int, b: int) -> list[str]:
    """Of two known numbers the product itself; else the larger one's places one by one."""
    if _known(a) and _known(b):
        return [str(a * b)]
    factor, number = (a, b) if _known(a) and (not _known(b) or a <= b) else (b, a)
    terms = [place * factor for place in places(number)]
    total = terms[0]
    links = [" + ".join(map(str, terms))]
    for n, term in enumerate(terms[1:], start=2):
        links += [
            " + ".join([link, *map(str, terms[n:])]) for link in _sums([total, *places(term)])
        ]
        total += term
    return links


def _quotients(a: int, b: int) -> list[str]:
    """The places of the quotient, each from a part of the number."""
    parts = places(a // b)
    if len(parts) < 2:
        return [str(a // b)]
    shares = " + ".join(str(part * b) for part in parts)
    whole = a // b
    sums = " + ".join(map(str, parts))
    return [f"({shares}) / {b}", sums, str(whole)]
