"""From a measured run to the values of one table row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from loadtest.measured_run import MeasuredRun, Repeat, Sample, VariantRun, WorkloadRun
from loadtest.statistics import (
    Interval,
    Ratio,
    Spread,
    concurrency,
    paired_ratio,
    percentile,
    percentile_interval,
    rate_between,
)
from loadtest.variants import BASELINE, CONTROL, IN_PROCESS

NOISE_LIMIT_PERCENT = 10.0
STABLE_SHARE = 0.10
LITTLE_SHARE = 0.05


@dataclass(frozen=True)
class Usage:
    """Means over one or more windows; 100 % CPU is one core. None is "n/a".

    GPUs are told one by one, because a mean over them hides the one that is the limit; their
    memory is summed. Both are empty or None where there is no GPU.
    """

    server_cpu_percent: float | None
    server_rss_bytes: float | None
    clients_cpu_percent: float | None
    foreign_percent: float | None
    steal_percent: float | None
    gpu_percents: tuple[float, ...]
    gpu_memory_bytes: float | None


@dataclass(frozen=True)
class RepeatSummary:
    """One window of a variant with requests. Latencies are of requests that were answered."""

    repeat: int
    images_per_s: float
    tp50_ms: float | None
    tp99_ms: float | None
    concurrency: float | None
    usage: Usage


@dataclass(frozen=True)
class VariantSummary:
    """One row of the tables.

    Attributes:
        variant: what ran.
        qps: images per second, over the repeats.
        requests: in all repeats; 0 for a variant without requests.
        failed_images: images without a right answer.
        first_errors: the first few different failures, with their counts.
        latencies_ms: of all answered requests of all repeats, ascending.
        tp50_ms: over the repeats; None without requests, like all that follow from latencies.
        tp99_ms: over the repeats.
        tp50_interval: of the pooled latencies.
        tp99_interval: of the pooled latencies.
        concurrency: QPS x mean latency, median of the repeats.
        reference: the variant that `ratio` compares with: the baseline or, where it was not
            measured, the first row.
        ratio: QPS against that of the reference in the same repeat; None for the reference itself.
        control_ratio: QPS against that of the lock-free control in the same repeat.
        share_of_limit: median QPS as share of the in-process limit's.
        usage: means over all windows.
        repeats: the windows.
        is_stable: every repeat's QPS lies within 10 % of the median.
        is_noisy: somebody else used the processors in at least one window.
    """

    variant: VariantRun
    qps: Spread
    requests: int
    failed_images: int
    first_errors: list[tuple[str, int]]
    latencies_ms: list[float]
    tp50_ms: Spread | None
    tp99_ms: Spread | None
    tp50_interval: Interval | None
    tp99_interval: Interval | None
    concurrency: float | None
    reference: str
    ratio: Ratio | None
    control_ratio: Ratio | None
    share_of_limit: float | None
    usage: Usage
    repeats: list[RepeatSummary]
    is_stable: bool
    is_noisy: bool

    def pooled_percentile(self, q: float) -> float | None:
        """TPxx of all repeats together."""
        return percentile(self.latencies_ms, q) if self.latencies_ms else None

    def little_mismatch(self, clients: int) -> bool:
        """True if QPS x mean latency is off the number of clients by more than 5 %."""
        return self.concurrency is not None and abs(self.concurrency / clients - 1) > LITTLE_SHARE


def summarise(run: MeasuredRun, workload: WorkloadRun) -> list[VariantSummary]:
    """One summary per variant that was measured, in table order."""
    batch = int(run.settings["request_batch"])
    measured = {repeat.variant for repeat in workload.repeats}
    variants = [variant for variant in workload.variants if variant.name in measured]
    rates = {
        variant.name: {
            repeat.repeat: _images_per_s(repeat, batch)
            for repeat in workload.repeats
            if repeat.variant == variant.name
        }
        for variant in variants
    }
    return [_summarise(variant, workload, batch, rates) for variant in variants]


def _images_per_s(repeat: Repeat, batch: int) -> float:
    if repeat.images_per_s is not None:
        return repeat.images_per_s
    right = sum(batch - record.failed_images for record in repeat.records)
    return right / repeat.length_s


def _summarise(
    variant: VariantRun,
    workload: WorkloadRun,
    batch: int,
    rates: dict[str, dict[int, float]],
) -> VariantSummary:
    repeats = [repeat for repeat in workload.repeats if repeat.variant == variant.name]
    records = [record for repeat in repeats for record in repeat.records]
    latencies = sorted(r.latency_ms for r in records if r.failed_images < batch)
    errors: dict[str, int] = {}
    for record in records:
        if record.error:
            errors[record.error] = errors.get(record.error, 0) + 1
    summaries = [_summarise_repeat(repeat, batch) for repeat in repeats]
    own = rates[variant.name]
    qps = Spread.of(list(own.values()))
    limit = rates.get(IN_PROCESS)
    reference = BASELINE if BASELINE in rates else next(iter(rates))
    in_flight = [s.concurrency for s in summaries if s.concurrency is not None]
    foreign = [s.usage.foreign_percent for s in summaries if s.usage.foreign_percent is not None]
    return VariantSummary(
        variant=variant,
        qps=qps,
        requests=len(records),
        failed_images=sum(record.failed_images for record in records),
        first_errors=list(errors.items())[:3],
        latencies_ms=latencies,
        tp50_ms=_spread([s.tp50_ms for s in summaries]),
        tp99_ms=_spread([s.tp99_ms for s in summaries]),
        tp50_interval=percentile_interval(latencies, 0.50) if latencies else None,
        tp99_interval=percentile_interval(latencies, 0.99) if latencies else None,
        concurrency=Spread.of(in_flight).median if in_flight else None,
        reference=reference,
        ratio=_ratio(own, rates[reference]),
        control_ratio=_ratio(own, rates.get(CONTROL)),
        share_of_limit=qps.median / Spread.of(list(limit.values())).median if limit else None,
        usage=_mean_usage([s.usage for s in summaries]),
        repeats=summaries,
        is_stable=qps.within(STABLE_SHARE),
        is_noisy=any(value > NOISE_LIMIT_PERCENT for value in foreign),
    )


def _ratio(own: dict[int, float], reference: dict[int, float] | None) -> Ratio | None:
    """The paired ratio; None without a reference or where a repeat answered nothing.

    A run that was stopped has a last repeat that not every variant reached: it pairs with nothing.
    """
    if reference is None or own is reference:
        return None
    pairs = [(own[repeat], reference[repeat]) for repeat in sorted(own.keys() & reference.keys())]
    if not pairs or min(min(pair) for pair in pairs) <= 0:
        return None
    return paired_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread.of(known) if known else None


def _summarise_repeat(repeat: Repeat, batch: int) -> RepeatSummary:
    latencies = sorted(r.latency_ms for r in repeat.records if r.failed_images < batch)
    mean_ms = sum(latencies) / len(latencies) if latencies else None
    return RepeatSummary(
        repeat=repeat.repeat,
        images_per_s=_images_per_s(repeat, batch),
        tp50_ms=percentile(latencies, 0.50) if latencies else None,
        tp99_ms=percentile(latencies, 0.99) if latencies else None,
        concurrency=None
        if mean_ms is None
        else concurrency(len(latencies), mean_ms, repeat.length_s),
        usage=window_usage(repeat.samples, repeat.length_s),
    )


def window_usage(samples: Sequence[Sample], length_s: float) -> Usage:
    """Means over the window [0, length_s] of its samples."""
    if len(samples) < 2:
        return Usage(None, None, None, None, None, (), None)
    times = [sample.at_s for sample in samples]

    def percent(counters: Sequence[float | None]) -> float | None:
        known = [value for value in counters if value is not None]
        if len(known) < len(counters):
            return None
        return 100 * rate_between(times, known, 0.0, length_s)

    server = percent([sample.server_cpu_s for sample in samples])
    clients = percent([sample.clients_cpu_s for sample in samples])
    own = percent([sample.own_cpu_s for sample in samples])
    busy = percent([sample.machine_busy_s for sample in samples])
    foreign = None
    if server is not None and clients is not None and own is not None and busy is not None:
        foreign = max(0.0, busy - server - clients - own)
    resident = [s.server_rss_bytes for s in samples if s.server_rss_bytes is not None]
    gpu_percents, gpu_memory_bytes = _gpu_means(samples)
    return Usage(
        server_cpu_percent=server,
        server_rss_bytes=sum(resident) / len(resident) if resident else None,
        clients_cpu_percent=clients,
        foreign_percent=foreign,
        steal_percent=percent([sample.machine_steal_s for sample in samples]),
        gpu_percents=gpu_percents,
        gpu_memory_bytes=gpu_memory_bytes,
    )


def _gpu_means(samples: Sequence[Sample]) -> tuple[tuple[float, ...], float | None]:
    """Mean utilisation of every GPU in percent, and the mean memory of all of them in bytes."""
    count = min(len(sample.gpus) for sample in samples)
    if count == 0:
        return (), None
    by_gpu = [[sample.gpus[index] for sample in samples] for index in range(count)]
    percents = tuple(fmean(gpu.utilisation_percent for gpu in gpus) for gpus in by_gpu)
    return percents, sum(fmean(gpu.memory_used_bytes for gpu in gpus) for gpus in by_gpu)


def _mean_usage(usages: Sequence[Usage]) -> Usage:
    def mean(name: str) -> float | None:
        values = [getattr(usage, name) for usage in usages]
        return None if not values or None in values else sum(values) / len(values)

    names = [name for name in Usage.__dataclass_fields__ if name != "gpu_percents"]
    gpus = zip(*(usage.gpu_percents for usage in usages), strict=True)
    return Usage(**{name: mean(name) for name in names}, gpu_percents=tuple(map(fmean, gpus)))
