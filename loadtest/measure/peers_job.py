"""One workload of `peers`: who serves it, what they said, and what was measured of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

from loadtest.measure.agreement import Answer, compare_answers
from loadtest.measure.contestants import Contestant, Running
from loadtest.measure.peers_settings import PeerWorkload
from loadtest.records.run import TRIAL, VariantRun, Window, WorkloadRun


class PeersJob:
    """A workload: who serves it, what they said, and what was measured.

    Attributes:
        tried: all settings.
        contestants: those of them that are kept.
        failed: names of those that failed.
        result: what was measured.
    """

    def __init__(self, workload: PeerWorkload, contestants: list[Contestant]) -> None:
        self.workload = workload
        self.tried = self.contestants = contestants
        self.failed: set[str] = set()
        self.expected_labels: Mapping[str, str] = {}
        self._answers: dict[str, Mapping[str, Answer]] = {}
        self.result = WorkloadRun(
            name=workload.name,
            model=Path(workload.model).name,
            model_sha256="",
            engine=workload.engine,
            precision=workload.precision,
        )

    def check(
        self, contestant: Contestant, running: Running, answers: Mapping[str, Answer]
    ) -> None:
        """Keep the answers of a contestant that agrees with all before it.

        Raises:
            LoadTestError: it does not.
        """
        all_answers = {**self._answers, contestant.name: answers}
        agreement = compare_answers(all_answers, self.workload.score_tolerance)
        self._answers = all_answers
        self.expected_labels = agreement.expected_labels
        self.result = replace(
            self.result,
            agreement=agreement.as_record(),
            model_sha256=running.record["model_sha256"],
            variants=[
                *self.result.variants,
                VariantRun(contestant.name, contestant.description, running.record),
            ],
        )

    def best_rate(self, name: str) -> float:
        """The highest median of right answers a second, over the numbers of clients; 0 for none."""
        rates: dict[int, list[float]] = {}
        for window in self.result.windows:
            if window.variant == name and window.clients and window.repeat != TRIAL:
                rates.setdefault(window.clients, []).append(right_answers_per_s(window))
        return max((median(values) for values in rates.values()), default=0.0)


def right_answers_per_s(window: Window) -> float:
    """How many requests without a failed image were answered in a window, by its length."""
    return sum(not record.failed_images for record in window.records) / window.length_s
