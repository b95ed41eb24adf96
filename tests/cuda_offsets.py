"""Reads CUDA C++ for offsets that are computed in 32 bits where a full-width model needs more.

A reader of tokens, no parser: it knows declarations by their types, and an address by a pointer's
name in front of `+` or `[`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|->|::|<<|>>|[<>=!+\-*/%&|^]=|&&|\|\||\S")
NARROW = ("int", "u32", "unsigned", "uint32_t", "int32_t", "short")
NUMBER = re.compile(r"(?:\w*_)?(?:row|page|number|request|position|slot|token|pair)s?")
"""What counts rows or pages: times what lies between two of them it is an offset."""
WIDE = re.compile(r"(?=\b(?:long long|u64|size_t|int64_t)\s+(\w+(?:\s*,\s*\w+)*)\s*(\S))")
POINTER = re.compile(r"(\w+|,)\s*\*\s*(?:const\s+)?(?:__restrict__\s+)?([A-Za-z_]\w*)\s*(?=[,;)=])")
CLOSING = {"(": ")", "[": "]", "{": "}"}
Tokens = Sequence[str]


def without_comments(source: str) -> str:
    """Lines stay where they are."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), source, flags=re.S)


def given_wide(source: str) -> set[str]:
    """Names of parameters and fields of 64 bits; what is initialised is a local's."""
    found = set[str]()
    for declared, behind in WIDE.findall(source):
        *names, last = re.findall(r"\w+", declared)
        found.update((*names, last) if behind in ",;)" else names)
    return {name for name in found if not is_type_name(name)}


def given_narrow(source: str) -> set[str]:
    """Names that are declared with 32 bits."""
    return set(re.findall(rf"\b(?:{'|'.join(NARROW)})\s+(\w+)\b", source))


def pointers_of(source: str) -> set[str]:
    """Names that are declared as pointers: behind a type's star, or a further one."""
    return {
        name for before, name in POINTER.findall(source) if before == "," or is_type_name(before)
    }


def local_wide(source: str) -> set[str]:
    """Names that are initialised with 64 bits, and those of none other."""
    found = re.findall(r"\b(?:long long|u64|size_t|int64_t)\s+(\w+)\s*=", source)
    return set(found) - given_narrow(source)


def _balanced(tokens: Tokens, start: int) -> int:
    """Behind what the bracket at `start` encloses."""
    depth = 0
    for i in range(start, len(tokens)):
        depth += (tokens[i] in CLOSING) - (tokens[i] in CLOSING.values())
        if not depth:
            return i + 1
    return len(tokens)


def _factor(tokens: Tokens, start: int) -> int:
    """Behind the cast, name, call, number or bracket that begins at `start`."""
    i = start
    while i < len(tokens) and tokens[i] in ("-", "!", "~", "&"):
        i += 1
    if i < len(tokens) and tokens[i] == "(":
        is_cast = is_type(tokens[i + 1 : _balanced(tokens, i) - 1])
        i = _balanced(tokens, i)
        if is_cast:
            return _factor(tokens, i)
    else:
        i += 1
    while i < len(tokens) and tokens[i] in ("(", "[", ".", "->", "::"):
        i = _balanced(tokens, i) if tokens[i] in CLOSING else i + 2
    return i


def is_type(tokens: Tokens) -> bool:
    """Whether these are a type's words: `long long`, `const float4*`."""
    words = [t for t in tokens if t not in ("*", "&", "const")]
    return bool(words) and all(is_type_name(t) for t in words)


def is_type_name(token: str) -> bool:
    """By the code's custom: constants are upper case, variables lower."""
    known = {*NARROW, "long", "float", "char", "bool", "auto", "void", "double", "const", "signed"}
    return token in known or bool(
        re.fullmatch(r"[A-Z]\w*[a-z]\w*|u?int\d+_t|u?int[24]|float[24]|u64|__nv_\w+|T", token)
    )


def _terms(tokens: Tokens) -> Iterator[tuple[list[Tokens], list[str]]]:
    """Factors and the operators between them of each term of a sum, then of what lies within."""
    i = 0
    while i < len(tokens):
        end = _factor(tokens, i)
        factors, between = [tokens[i:end]], list[str]()
        while end < len(tokens) and tokens[end] in ("*", "/", "%"):
            begin = end + 1
            between.append(tokens[end])
            end = _factor(tokens, begin)
            factors.append(tokens[begin:end])
        yield factors, between
        for factor in factors:
            yield from _within(factor)
        i = end + 1


def _within(factor: Tokens) -> Iterator[tuple[list[Tokens], list[str]]]:
    at = 0
    while at < len(factor):
        if factor[at] in CLOSING:
            end = _balanced(factor, at)
            if factor[at] != "[":  # what lies there is a number of its own
                yield from _terms(factor[at + 1 : end - 1])
            at = end
        else:
            at += 1


def _without_subscripts(tokens: Tokens) -> list[str]:
    kept, i = list[str](), 0
    while i < len(tokens):
        if tokens[i] == "[":
            i = _balanced(tokens, i)
        else:
            kept.append(tokens[i])
            i += 1
    return kept


class Offsets:
    """What is narrow in one source. `wide` names are 64-bit in every source, `pointers` likewise
    where they are fields."""

    def __init__(self, source: str, wide: set[str], fields: set[str]) -> None:
        text = without_comments(source)
        self._wide = given_wide(text) | wide
        self._locals = local_wide(text)
        self._pointers = pointers_of(text)
        self._fields = fields
        self._tokens: list[str] = []
        self._lines: list[int] = []
        for match in TOKEN.finditer(text):
            self._tokens.append(match[0])
            self._lines.append(text.count("\n", 0, match.start()) + 1)

    def found(self) -> list[str]:
        """Each with its line."""
        listed = (*self._narrow_names(), *self._casts(), *self._narrowed(), *self._products())
        return [f"line {self._lines[at]}: {what}" for at, what in sorted(set(listed))]

    def _narrow_names(self) -> Iterator[tuple[int, str]]:
        for i, token in enumerate(self._tokens):
            if token in NARROW:
                for at in range(i + 1, len(self._tokens)):
                    name = self._tokens[at]
                    if not re.fullmatch(r"\w+|,", name) or is_type_name(name):
                        break
                    if name.endswith("stride"):
                        yield at, f"{token} {name}"

    def _casts(self) -> Iterator[tuple[int, str]]:
        for i, (before, kind, behind) in enumerate(
            zip(self._tokens, self._tokens[1:], self._tokens[2:], strict=False)
        ):
            if kind in NARROW and (before, behind) in (("(", ")"), ("<", ">")):
                operand = self._tokens[i + 3 : _factor(self._tokens, i + 3)]
                if self._wide & set(_without_subscripts(operand)):
                    yield i, f"({kind}){' '.join(operand)}"

    def _narrowed(self) -> Iterator[tuple[int, str]]:
        for i, value in self._initialised():
            if self._wide & set(_without_subscripts(value)):
                yield i, f"{' '.join(self._tokens[i : i + 2])} = {' '.join(value)}"

    def _initialised(self) -> Iterator[tuple[int, Tokens]]:
        """Where a narrow name is declared, and its value."""
        for i in range(len(self._tokens) - 2):
            if self._tokens[i] in NARROW and self._tokens[i + 2] == "=":
                yield i, self._tokens[i + 3 : self._end(i + 3)]

    def _products(self) -> Iterator[tuple[int, str]]:
        far = {
            self._tokens[i + 1]
            for i, value in self._initialised()
            if any(self._is_narrow(*term) for term in _terms(value))
        }
        for i, token in enumerate(self._tokens[:-1]):
            is_field = i > 0 and self._tokens[i - 1] in (".", "->") and token in self._fields
            if token not in self._pointers and not is_field:
                continue
            if self._tokens[i + 1] == "[":
                expression = self._tokens[i + 2 : _balanced(self._tokens, i + 1) - 1]
            elif self._tokens[i + 1] == "+":
                expression = self._tokens[i + 2 : self._end(i + 2)]
            else:
                continue
            for factors, between in _terms(expression):
                is_far = "%" not in between and any(far & set(each[:1]) for each in factors)
                if is_far or self._is_narrow(factors, between):
                    yield i, f"{token} + {' '.join(' '.join(f) for f in factors)}"

    def _is_narrow(self, factors: list[Tokens], between: list[str]) -> bool:
        if "*" not in between or "%" in between:
            return False
        names = [_without_subscripts(factor) for factor in factors]
        every = {name for factor in names for name in factor}
        counts = any(NUMBER.fullmatch(name) for name in every)
        return counts and not (every & (self._wide | self._locals) or "long" in every)

    def _end(self, start: int) -> int:
        i = start
        while i < len(self._tokens) and self._tokens[i] not in (";", ",", ")", "]", "}", "?", ":"):
            i = _balanced(self._tokens, i) if self._tokens[i] in CLOSING else i + 1
        return i
