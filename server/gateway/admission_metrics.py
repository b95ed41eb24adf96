"""What `/metrics` tells of the queue's bounds and how full they are. Knows no route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lostwax.server.gateway.admission import Admission


class AdmissionMetrics(Collector):
    """Answers and tokens of what runs or waits, and the most of them that are taken."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        bounds = self._admission
        yield _by_bound(
            "lostwax_queue_filled",
            "What runs or waits: answers, and tokens that they bring.",
            {"answers": bounds.num_reqs, "tokens": bounds.num_tokens},
        )
        yield _by_bound(
            "lostwax_queue_bound",
            "The most that is taken: what would be more hears 429.",
            {"answers": bounds.max_reqs, "tokens": bounds.max_tokens},
        )


def _by_bound(name: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["of"])
    for bound, value in values.items():
        family.add_metric([bound], value)
    return family
