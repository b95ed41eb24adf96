"""Answers whose text is compared as it is: the whole content, or its last line."""

from __future__ import annotations

import msgspec

from lostwax.evals.task import Answer, Grade
from lostwax.server.formats.encoding_v32 import EOS


class TextReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text that is right."""

    text: str


def grade_exact(reference: TextReference, answer: Answer) -> Grade:
    """Right where the content equals the reference, but for white space around it."""
    return _compare(reference, answer.content.removesuffix(EOS).strip(), answer)


def grade_last_line(reference: TextReference, answer: Answer) -> Grade:
    """Right where the last line that is not empty equals the reference; steps may stand before."""
    lines = answer.content.removesuffix(EOS).strip().splitlines()
    return _compare(reference, lines[-1].strip() if lines else "", answer)


def _compare(reference: TextReference, text: str, answer: Answer) -> Grade:
    if text == reference.text.strip():
        return Grade(True, text, "correct")
    if answer.is_cut_off:
        return Grade(False, text or None, "cut_off")
    return Grade(False, text or None, "wrong_value" if text else "no_answer")
