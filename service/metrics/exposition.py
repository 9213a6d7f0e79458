"""The metrics in Prometheus's text formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from service.metrics.metric_table import METRICS, Buckets, Metric, Snapshot

_FAMILIES = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def exposition(snapshot: Snapshot, accepted: str) -> tuple[bytes, str]:
    """What a scrape is answered with, and its content type.

    Args:
        snapshot: what to tell.
        accepted: the request's header Accept, which chooses the format.
    """
    encode, content_type = choose_encoder(accepted)
    return encode(_Registry(snapshot)), content_type


class _Registry:
    """The one method of a CollectorRegistry that encoding needs."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            yield _family(metric, self._snapshot)


def _family(metric: Metric, snapshot: Snapshot) -> Family:
    family: Any = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
    for labels, value in metric.read(snapshot):
        if isinstance(value, Buckets):
            bounds = [*map(floatToGoString, value.bounds), "+Inf"]
            buckets = list(zip(bounds, value.cumulative, strict=True))
            family.add_metric(labels, buckets, value.sum)
        else:
            family.add_metric(labels, value)
    return family  # type: ignore[no-any-return]
