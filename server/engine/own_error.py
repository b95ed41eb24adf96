"""Errors that this project raises on purpose, which are whole sentences. Knows no engine."""

from __future__ import annotations


def is_own(error: BaseException) -> bool:
    """Whether the error's text says to an operator what to do."""
    return type(error).__module__.startswith("lostwax.")


def described(error: BaseException) -> str:
    """The error's text, behind its class where that says more than the text alone."""
    return str(error) if is_own(error) else f"{type(error).__name__}: {error}"
