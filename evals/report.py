"""Puts the outcome of an evaluation together: a JSON report and a table. Knows no server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lostwax.evals.metrics import Metrics, metrics
from lostwax.evals.run import Failure, Outcome
from lostwax.evals.task import Sampling

SCHEMA = 1
MAX_FAULTS = 8


class Fault(msgspec.Struct, frozen=True):
    """One way in which requests failed, how often, and the first that did."""

    fault: str
    count: int
    first: str


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """One task: how it was asked, what it shows. `resumed` samples came from an earlier run."""

    task: str
    sampling: dict[str, Any]
    metrics: Metrics
    resumed: int
    seconds: float
    faults: list[Fault]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole evaluation."""

    schema: int = SCHEMA
    lostwax: str
    model: str
    source: str
    settings: dict[str, Any]
    tasks: list[TaskReport]

    @property
    def errors(self) -> int:
        """Requests that got no answer."""
        return sum(task.metrics.errors for task in self.tasks)


def task_report(task: str, sampling: Sampling, outcome: Outcome) -> TaskReport:
    """What a task's outcome says."""
    return TaskReport(
        task=task,
        sampling=msgspec.to_builtins(sampling),
        metrics=metrics(outcome.samples, len(outcome.failures)),
        resumed=outcome.resumed,
        seconds=round(outcome.seconds, 3),
        faults=_faults(outcome.failures),
    )


def table(report: Report) -> list[str]:
    """The report as lines of text, one a task; failures and why answers were wrong below it."""
    head = ("task", "accuracy", "±", "samples", "errors", "tokens", "seconds", "more")
    rows = [head, *(_row(task) for task in report.tasks)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
            + [row[-1]]
        ).rstrip()
        for row in rows
    ]
    for task in report.tasks:
        wrong = {r: n for r, n in task.metrics.reasons.items() if r != "correct"}
        if wrong:
            lines.append(f"{task.task}: " + ", ".join(f"{r} {n}" for r, n in wrong.items()))
        for fault in task.faults:
            lines.append(f"{task.task}: {fault.count} failed, first {fault.first}: {fault.fault}")
    return lines


def _row(task: TaskReport) -> tuple[str, ...]:
    m = task.metrics
    more = [f"pass@{k} {value:.1%}" for k, value in m.pass_at.items() if k > 1]
    more += [f"majority {m.majority:.1%}"] if m.majority is not None else []
    more += [f"whole text {m.exact:.1%}"] if m.exact is not None else []
    more += [f"resumed {task.resumed}"] if task.resumed else []
    return (
        task.task,
        "-" if m.accuracy is None else f"{m.accuracy:.1%}",
        "-" if m.standard_error is None else f"{m.standard_error:.1%}",
        str(m.samples),
        str(m.errors),
        str(m.completion_tokens),
        f"{task.seconds:.1f}",
        ", ".join(more),
    )


def _faults(failures: Sequence[Failure]) -> list[Fault]:
    """Failures by what was said, the most frequent first."""
    by_fault: dict[str, list[Failure]] = {}
    for failure in failures:
        by_fault.setdefault(failure.fault, []).append(failure)
    most = sorted(by_fault.items(), key=lambda item: -len(item[1]))
    found = [Fault(f, len(all_), f"{all_[0].id}/{all_[0].repeat}") for f, all_ in most]
    rest = sum(fault.count for fault in found[MAX_FAULTS:])
    more = [Fault("other faults", rest, found[MAX_FAULTS].first)] if rest else []
    return found[:MAX_FAULTS] + more
