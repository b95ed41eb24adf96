"""Dimensions as integer polynomials over named symbols (`T`, `64*P`, `B + 1`). Knows no tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdsl.parser import AttrParser

Monomial = tuple[str, ...]


class Size:
    """An immutable polynomial {monomial: coefficient}, canonical: sorted symbols, no zero terms."""

    __slots__ = ("_terms",)

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self._terms: tuple[tuple[Monomial, int], ...] = tuple(
            sorted(((m, c) for m, c in terms.items() if c), key=lambda t: (not t[0], t[0]))
        )

    @staticmethod
    def of(value: int | str | Size) -> Size:
        """A constant, a symbol, or the size itself."""
        if isinstance(value, Size):
            return value
        return Size({(): value}) if isinstance(value, int) else Size({(value,): 1})

    @property
    def terms(self) -> dict[Monomial, int]:
        """The polynomial as a dictionary."""
        return dict(self._terms)

    @property
    def constant(self) -> int | None:
        """The value if the size has no symbol, else None."""
        if not self._terms:
            return 0
        return self._terms[0][1] if self._terms == (((), self._terms[0][1]),) else None

    @property
    def symbols(self) -> frozenset[str]:
        """Every symbol that occurs."""
        return frozenset(s for m, _ in self._terms for s in m)

    def __add__(self, other: Size) -> Size:
        terms = self.terms
        for monomial, c in other._terms:
            terms[monomial] = terms.get(monomial, 0) + c
        return Size(terms)

    def __mul__(self, other: Size) -> Size:
        terms: dict[Monomial, int] = {}
        for m, c in self._terms:
            for n, d in other._terms:
                key = tuple(sorted(m + n))
                terms[key] = terms.get(key, 0) + c * d
        return Size(terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(self._terms)

    def __str__(self) -> str:
        def term(m: Monomial, c: int) -> str:
            return "*".join(([str(c)] if c != 1 or not m else []) + list(m))

        return " + ".join(term(m, c) for m, c in self._terms).replace("+ -", "- ") or "0"

    def __repr__(self) -> str:
        return f"Size({self})"

    def at(self, env: Mapping[str, int]) -> int:
        """The value with every symbol replaced; KeyError names a missing symbol."""
        total = 0
        for monomial, c in self._terms:
            for s in monomial:
                c *= env[s]
            total += c
        return total

    def substitute(self, env: Mapping[str, Size]) -> Size:
        """The size with some symbols replaced by sizes."""
        total = Size({})
        for monomial, c in self._terms:
            product = Size.of(c)
            for s in monomial:
                product = product * env.get(s, Size.of(s))
            total = total + product
        return total


def parse_size(parser: AttrParser) -> Size:
    """Parse `64*P`, `B + 1`, `2*T - 1`."""

    def factor() -> Size:
        number = parser.parse_optional_integer(allow_boolean=False)
        return Size.of(parser.parse_identifier() if number is None else number)

    def term() -> Size:
        result = factor()
        while parser.parse_optional_punctuation("*"):
            result = result * factor()
        return result

    result = term()
    while True:
        if parser.parse_optional_punctuation("+"):
            result = result + term()
        elif parser.parse_optional_punctuation("-"):
            result = result + term() * Size.of(-1)
        else:
            return result
