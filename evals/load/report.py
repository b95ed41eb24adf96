"""Puts together what a load has shown: keys of `vllm bench serve`, and a table. Knows no server.

Tools that read the files of `vllm bench serve` read these: same keys, same units, one load a file.
Keys of our own stand beside them: percentiles by their number, what the client cost, and waiting.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from lostwax.evals.load.drive import Load, Measured
from lostwax.evals.load.statistics import described_ms, percentile

Result = dict[str, Any]
MAX_CPU_SHARE = 0.7
"""Of a core: beyond it chunks queue in the client, and its own time is what is measured."""
MIN_LAG_MS = 5.0
"""Below it a loop's lag is the timer's and the system's, whatever the client does."""
MAX_FAULTS = 8


def point_result(measured: Measured, load: Load, about: Result) -> Result:
    """One load's result; `about` says what was asked and of whom."""
    answers, seconds = measured.answers, measured.own.seconds
    prompt_tokens = sum(answer.prompt_tokens for answer in answers)
    output_tokens = sum(answer.output_tokens for answer in answers)
    token_times = [t for answer in answers if (t := answer.token_s) is not None]
    gaps = described_ms([gap for answer in answers for gap in answer.gaps_s], "itl")
    return {
        **about,
        "num_prompts": len(answers) + measured.failed,
        "request_rate": "inf" if math.isinf(load.rate) else load.rate,
        "burstiness": 1.0,  # a Poisson process
        "max_concurrency": load.concurrency,
        "duration": seconds,
        "completed": len(answers),
        "failed": measured.failed,
        "total_input_tokens": prompt_tokens,
        "total_output_tokens": output_tokens,
        "request_throughput": len(answers) / seconds,
        "output_throughput": output_tokens / seconds,
        "total_token_throughput": (prompt_tokens + output_tokens) / seconds,
        "max_concurrent_requests": measured.max_in_flight,
        **described_ms([answer.first_s for answer in answers], "ttft"),
        **described_ms(token_times, "tpot"),
        **gaps,
        **described_ms([answer.last_s for answer in answers], "e2el"),
        **_waits(measured, load),
        "faults": [
            {"fault": fault, "count": count}
            for fault, count in measured.faults.most_common(MAX_FAULTS)
        ],
        "client": _client(measured, output_tokens, gaps["p99_itl_ms"]),
    }


def _waits(measured: Measured, load: Load) -> dict[str, float | None]:
    """How long requests waited for a place; of an unlimited rate all wait from the start."""
    return {} if math.isinf(load.rate) else described_ms(measured.waits_s, "wait")


def _client(measured: Measured, output_tokens: int, p99_itl_ms: float | None) -> Result:
    """What the client cost, and whether that is part of what it measured."""
    own = measured.own
    share = own.cpu_s / own.seconds
    lag_ms = percentile(sorted(own.lags_s), 99) * 1e3 if own.lags_s else None
    shown_ms = max(MIN_LAG_MS, (p99_itl_ms or 0.0) / 2)
    return {
        "cpu_share": share,
        "cpu_us_per_token": own.cpu_s / output_tokens * 1e6 if output_tokens else None,
        "p99_lag_ms": lag_ms,
        "is_bound": share > MAX_CPU_SHARE,
        "is_late": lag_ms is not None and lag_ms > shown_ms,
    }


_HEAD = (
    *("rate", "at once", "asked", "failed", "req/s", "out tok/s"),
    *("ttft p50", "p99", "tpot p50", "p99", "itl p99", "e2el p50", "p99"),
)
_TIMES = ("p50_ttft", "p99_ttft", "p50_tpot", "p99_tpot", "p99_itl", "p50_e2el", "p99_e2el")


def table(results: Sequence[Result]) -> list[str]:
    """A line a load, times in ms; below it what failed, and where the client shows in the times."""
    rows = [_HEAD, *(_row(result) for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    for result in results:
        where = f"rate {_rate(result)}, at once {_concurrency(result)}"
        for found in result["faults"]:
            lines.append(f"{where}: {found['count']} failed: {found['fault']}")
        lines += [f"{where}: {said}" for said in _client_said(result["client"])]
    return lines


def _client_said(client: Result) -> Iterator[str]:
    if client["is_bound"]:
        yield (
            f"this client used {client['cpu_share']:.0%} of a core, so that the times are partly"
            " its own; spread the load over several clients"
        )
    if client["is_late"]:
        yield (
            f"this client's clock was up to {client['p99_lag_ms']:.0f} ms late (p99), so that high"
            " percentiles are partly its own; ask from a machine with an idle core"
        )


def _rate(result: Result) -> str:
    rate = result["request_rate"]
    return rate if isinstance(rate, str) else f"{rate:g}"


def _concurrency(result: Result) -> str:
    return "any" if result["max_concurrency"] is None else str(result["max_concurrency"])


def _row(result: Result) -> tuple[str, ...]:
    times = [result[f"{key}_ms"] for key in _TIMES]
    return (
        _rate(result),
        _concurrency(result),
        str(result["num_prompts"]),
        str(result["failed"]),
        f"{result['request_throughput']:.2f}",
        f"{result['output_throughput']:.1f}",
        *("-" if time is None else f"{time:.1f}" for time in times),
    )
