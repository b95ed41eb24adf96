"""A logged failure shows the line that raised it, however long its causes and messages are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.told_fault import MAX_CHARS

LONG = "x" * (2 * MAX_CHARS)


def _after_a_long_cause() -> None:
    try:
        raise LookupError(LONG)
    except LookupError as error:
        raise ZeroDivisionError("short") from error  # the culprit


def _after_many_causes(left: int = 100) -> None:
    try:
        if left:
            _after_many_causes(left - 1)
    finally:
        if left < 100:
            raise LookupError(f"cause {left}")
        raise ZeroDivisionError("short")  # the culprit


def _with_a_long_message() -> None:
    raise ZeroDivisionError(LONG)  # the culprit


def _with_many_lines() -> None:
    raise ZeroDivisionError("\n" * MAX_CHARS)  # the culprit


@pytest.mark.parametrize(
    "fail", [_after_a_long_cause, _after_many_causes, _with_a_long_message, _with_many_lines]
)
def test_the_culprits_line_is_logged_within_bounds(fail: Callable[[], None]) -> None:
    written: list[str] = []
    try:
        fail()
    except ZeroDivisionError as error:
        FailureLog(written.append)("it failed", error)
    (said,) = written
    head, *trace = said.splitlines()
    assert head.startswith("it failed: ZeroDivisionError: ")
    assert any(line.endswith("# the culprit") for line in trace), trace[-5:]
    assert len(said) < 2 * MAX_CHARS
