"""Numbers of a task from its samples: accuracy and its error, pass@k, majority. Asks nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from lostwax.evals.samples import Sample


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What samples of one task show. Errors are requests without an answer: they are not graded.

    `accuracy` is the mean over examples of the share of right repeats, `standard_error` that of
    this mean over examples as independent draws (Miller, arXiv 2411.00640, section 2.2: repeats of
    one example are no independent draws). `pass_at` by k, `majority` where there are repeats.
    `exact` is the share of answers that equal the example's whole best text.
    """

    examples: int
    samples: int
    errors: int
    accuracy: float | None
    standard_error: float | None
    pass_at: dict[int, float]
    majority: float | None
    exact: float | None
    reasons: dict[str, int]
    prompt_tokens: int
    completion_tokens: int


def metrics(samples: Sequence[Sample], errors: int) -> Metrics:
    """The numbers of all samples of a task; `errors` counts requests that failed."""
    by_example: dict[str, list[Sample]] = {}
    for sample in samples:
        by_example.setdefault(sample.id, []).append(sample)
    groups = list(by_example.values())
    means = [sum(s.grade.correct for s in group) / len(group) for group in groups]
    repeats = min(map(len, groups), default=0)
    compared = [s.is_exact for s in samples if s.is_exact is not None]
    return Metrics(
        examples=len(groups),
        samples=len(samples),
        errors=errors,
        accuracy=_mean(means),
        standard_error=standard_error(means),
        pass_at={k: _pass_at(groups, k) for k in _powers_of_two(repeats)} if repeats > 1 else {},
        majority=_mean([float(majority(group)) for group in groups]) if repeats > 1 else None,
        exact=_mean([float(e) for e in compared]),
        reasons=dict(Counter(str(s.grade.reason) for s in samples).most_common()),
        prompt_tokens=sum(s.prompt_tokens for s in samples),
        completion_tokens=sum(s.completion_tokens for s in samples),
    )


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that k of n samples, drawn without replacement, hold a right one.

    The unbiased estimator of Chen et al., "Evaluating Large Language Models Trained on Code"
    (arXiv 2107.03374), equation 1.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass@{k} of {correct} right among {n} samples means nothing")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority(group: Sequence[Sample]) -> bool:
    """Whether the answer that most repeats give is right; of equals, the one given first.

    Repeats without an answer do not vote.
    """
    votes = [(s.grade.vote or s.grade.answer, s) for s in sorted(group, key=lambda s: s.repeat)]
    counts = Counter(vote for vote, _ in votes if vote is not None)
    if not counts:
        return False
    # A counter keeps the order of first sight, and most_common is stable.
    winner = counts.most_common(1)[0][0]
    return next(s.grade.correct for vote, s in votes if vote == winner)


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def _pass_at(groups: Sequence[Sequence[Sample]], k: int) -> float:
    each = [pass_at_k(len(g), sum(s.grade.correct for s in g), k) for g in groups]
    return sum(each) / len(each)


def _powers_of_two(limit: int) -> list[int]:
    return [2**e for e in range(limit.bit_length()) if 2**e <= limit]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
