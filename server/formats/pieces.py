"""A prompt in pieces: what its encoding wrote, and what a client brought. Knows no tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a prompt. Marks are tokens of their own in structure, and letters in other text."""

    text: str
    is_structure: bool


def joined(pieces: Iterable[Piece]) -> str:
    """The prompt as one text, in which nothing tells a mark from its letters any more."""
    return "".join(piece.text for piece in pieces)
