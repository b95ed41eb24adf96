"""How long state machines look for what is wrong with a mutant: the same examples each time."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

SEARCH = settings(
    max_examples=3000,
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
