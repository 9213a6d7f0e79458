"""`tune`: a better setting of the pipeline for this machine and model, within a latency limit.

Optuna proposes settings. Each gets a fresh server and climbs the same ladder of clients as the
default's server, which stays all the time: window by window in turn, so that whatever the machine
does meanwhile happens to both. The best one owes a part of its lead to luck, so it is measured
again beside the default at the end, and only that decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import tomli_w

from interfaces.messages import from_json
from interfaces.tuning import Tunable
from loadtest.errors import LoadTestError
from loadtest.measure.agreement import ask, compare_answers
from loadtest.measure.series import Series
from loadtest.measure.time_limit import TimeIsOverError, ends_by
from loadtest.measure.tune_settings import TuneSettings
from loadtest.measure.tuning_space import Setting, choices, default_setting, document_of
from loadtest.processes.child_process import ChildProcess
from loadtest.progress import Progress, minutes
from loadtest.records import machine
from loadtest.records.ladder import Climb, Rung
from loadtest.records.raw_files import RawWriter, one_line_errors
from loadtest.records.run import Run, VariantRun, Window, WorkloadRun, new_run
from loadtest.records.tuned import (
    DEFAULT,
    FINAL,
    Pair,
    searched,
    setting_of,
    trial_name,
    verdict,
    winner,
)
from loadtest.servers.programs import tunable_command
from loadtest.servers.servers import Servers, Serving
from loadtest.servers.variants import Variant

BEST_FILE = "best.toml"
# Of the time, what the end has: the winner beside the default.
_FINAL_SHARE = 0.3
# Stopping servers and writing the report.
_RESERVE_S = 5.0
# Trials before Optuna's sampler begins to learn from them.
_STARTUP_TRIALS = 6
# So many proposals in a row that were measured already: all of them nearly are.
_MOST_REPEATED = 50


class Tuning:
    """One run of `tune`.

    Args:
        settings: what to tune.
        command: the command line, for the record.
        writer: keeps what is measured, window by window.
        progress: shows how it goes.
    """

    def __init__(
        self, settings: TuneSettings, command: str, writer: RawWriter, progress: Progress
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._progress = progress
        self._end_s = time.monotonic() + settings.budget_s
        self._series = Series(settings.images, settings.client_processes, progress)
        self._expected_labels: Mapping[str, str] = {}
        self._start = 0
        self._run = new_run(
            "tune",
            command,
            settings.recorded(),
            images=[image.as_record() for image in settings.images],
            complete=False,
            results={"trials": [], "default": {}},
        )

    def run(self) -> Run:
        """Search, measure the winner again, and write the file to take.

        Raises:
            LoadTestError: the default cannot be served, or there was no time for a setting.
        """
        settings = self._settings
        self._progress.line(
            f"{settings.workload.name}: the most images per second with TP99 <= "
            f"{settings.slo_ms:g} ms, within {minutes(settings.budget_s)} minutes"
        )
        try:
            with closing(self._series), ExitStack() as stack, ends_by(self._end_s):
                self._measure(stack)
        except TimeIsOverError as error:
            if not searched(self._run):
                raise LoadTestError(
                    f"{error} before one setting was measured; --budget_s takes more"
                ) from error
        self._run = replace(self._run, complete=True)
        self._writer.save(self._run)
        self._write_best()
        return self._run

    def _measure(self, stack: ExitStack) -> None:
        settings = self._settings
        self._tunable = self._asked_for_document()
        self._series.have_processes(max(map(self._series.processes_of, settings.clients)))
        # As many processes as the service chooses.
        default = replace(settings.variant, name=DEFAULT, workers=None)
        started_s = time.monotonic()
        servers = stack.enter_context(Servers(settings.workload, settings.servers))
        control = stack.enter_context(servers.serving(default))
        answers = ask(settings.images, control.port)
        agreement = compare_answers({DEFAULT: answers}, settings.score_tolerance)
        self._expected_labels = agreement.expected_labels
        self._default = default_setting(self._tunable, control.identity.workers or 1)
        self._run.results["default"].update(self._default.as_record())
        # One of an earlier run would pass for this one's.
        (self._writer.folder / BEST_FILE).unlink(missing_ok=True)
        self._searching = self._workload_run(settings.workload.name, default, control)
        self._run.workloads.append(self._searching)
        self._search(control, time.monotonic() - started_s)
        if (best := winner(self._run)) is None:
            self._progress.line("no setting was better than the default")
            return
        self._remeasure(best, default, control)

    def _workload_run(self, name: str, default: Variant, control: Serving) -> WorkloadRun:
        variant = _variant_run(default, control)
        return WorkloadRun.of_server(name, control.identity.as_record(), variant)

    def _asked_for_document(self) -> Tunable:
        """What the service would run, which a program of the pipeline tells."""
        settings = self._settings
        command = tunable_command(settings.variant, settings.workload, settings.servers)
        found = None
        with ChildProcess(command, "reading the pipeline's configuration") as process:
            while line := process.next_line():
                if line.startswith('["Tunable"'):
                    found = from_json(line, [Tunable])
            if found is None:
                raise LoadTestError(process.ended())
        tunable: Tunable = found
        return tunable

    def _search(self, control: Serving, start_s: float) -> None:
        """Try settings until only the time of the end is left."""
        settings = self._settings
        values = choices(
            self._default, settings.slo_ms, machine.usable_cores(), on_gpu=self._tunable.on_gpu
        )
        study, distributions = _study(settings.load.seed, values, self._default)
        known = {self._default: 0.0}
        search_end_s = self._end_s - _FINAL_SHARE * settings.budget_s
        took_s: list[float] = []
        repeated = 0
        while repeated < _MOST_REPEATED and len(took_s) != settings.tries:
            each_s = fmean(took_s) if took_s else start_s + 6 * self._window_s()
            if time.monotonic() + each_s > search_end_s and took_s:
                break
            trial = study.ask(distributions)
            setting = Setting(**{name: values[name][trial.params[name]] for name in values})
            if setting in known:
                repeated += 1
                study.tell(trial, known[setting])
                continue
            repeated = 0
            started_s = time.monotonic()
            score = self._try(len(self._run.results["trials"]) + 1, setting, control)
            took_s.append(time.monotonic() - started_s)
            if score is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                known[setting] = score
                study.tell(trial, score)

    def _try(self, number: int, setting: Setting, control: Serving) -> float | None:
        """Measure a setting beside the default; None where it cannot be served."""
        name = trial_name(number)
        self._progress.line(f"{name}: {setting}")
        record = {"trial": number, **setting.as_record(), "error": ""}
        self._run.results["trials"].append(record)
        try:
            with self._serving(name, setting) as serving:
                pair = self._pair(self._searching, name, number, serving, control)
        except TimeIsOverError:
            record["error"] = "no time to measure it"
            raise
        except LoadTestError as error:
            control.process.require_alive()
            record["error"] = str(machine.without_paths(str(error)))
            self._progress.line(f"{name}: {error}")
            self._series.replace_processes()
            return None
        rate = pair.setting.images_per_s
        told = "not within the limit" if rate is None else f"{rate:.1f} images/s within the limit"
        default = pair.default.images_per_s
        factor = f", {rate / default:.2f} x the default" if rate and default else ""
        self._progress.line(f"{name}: {told}{factor}")
        return pair.score

    @contextmanager
    def _serving(self, name: str, setting: Setting) -> Iterator[Serving]:
        """A fresh server of the setting's file."""
        settings = self._settings
        path = self._writer.folder / f".{name}.toml"
        with one_line_errors(self._writer.folder):
            path.write_text(tomli_w.dumps(document_of(self._tunable, setting)), encoding="utf-8")
        variant = Variant(name, "pipeline", (), str(setting), workers=setting.workers)
        options = replace(settings.servers, config=str(path), port=settings.servers.port + 1)
        try:
            with (
                Servers(settings.workload, options) as servers,
                servers.serving(variant) as serving,
            ):
                yield serving
        finally:
            path.unlink(missing_ok=True)

    def _remeasure(self, best: int, default: Variant, control: Serving) -> None:
        """The winner beside the default, in as many pairs as there is time for."""
        setting = Setting(**setting_of(self._run, best))
        self._progress.line(f"measuring {trial_name(best)} again beside the default: {setting}")
        final = self._workload_run(f"{self._searching.name}-{FINAL}", default, control)
        with self._serving(trial_name(best), setting) as serving:
            self._run.workloads.append(final)
            took_s = 6 * self._window_s()
            for repeat in range(1, self._settings.repeats + 1):
                if time.monotonic() + took_s + _RESERVE_S > self._end_s:
                    break
                started_s = time.monotonic()
                self._pair(final, trial_name(best), repeat, serving, control)
                took_s = time.monotonic() - started_s

    def _pair(
        self, workload: WorkloadRun, name: str, repeat: int, serving: Serving, control: Serving
    ) -> Pair:
        """Both climb their ladders, window by window in turn; kept in the run if it ends well."""
        settings = self._settings
        sides = {name: serving, DEFAULT: control}
        order = [*sides] if repeat % 2 else [*sides][::-1]
        climbs = {side: Climb(settings.clients, settings.slo_ms, self._start) for side in sides}
        windows: list[Window] = []
        while any(climb.next_clients is not None for climb in climbs.values()):
            for side in order:
                if (clients := climbs[side].next_clients) is not None:
                    window = self._window(side, repeat, sides[side], clients)
                    windows.append(window)
                    climbs[side].add(Rung.of(window, settings.load.request_batch))
        if name not in {variant.name for variant in workload.variants}:
            setting = Setting(**setting_of(self._run, int(name.rpartition("-")[2])))
            variant = Variant(name, "pipeline", (), str(setting), workers=setting.workers)
            workload.variants.append(_variant_run(variant, serving))
        workload.windows.extend(windows)
        self._writer.save(self._run)
        # The next ladders begin just below where the default's ends.
        self._start = max(0, climbs[DEFAULT].top - 1)
        return Pair(climbs[name].ladder, climbs[DEFAULT].ladder)

    def _window(self, side: str, repeat: int, serving: Serving, clients: int) -> Window:
        return self._series.measure(
            side,
            repeat,
            replace(self._series.closed_load(self._settings.load, clients), port=serving.port),
            serving.process,
            f"[{minutes(self._end_s - time.monotonic())} left] {side}, clients: {clients}",
            self._expected_labels,
        )

    def _window_s(self) -> float:
        load = self._settings.load
        return load.warmup_s + (load.duration_s or 0.0) + 0.5

    def _write_best(self) -> None:
        """The file to take: the winner's if its gain is no chance, else the default's."""
        number = winner(self._run) if verdict(self._run).is_gain else None
        setting = Setting(**setting_of(self._run, number))
        path = self._writer.folder / BEST_FILE
        what = "the default" if number is None else f"{trial_name(number)}, better than the default"
        lines = [
            f"# {what}: {setting}",
            f"# {best_command(self._settings.servers.engine, path, setting)}",
            f"# made by {self._run.command}",
            "",
            tomli_w.dumps(document_of(self._tunable, setting)),
        ]
        with one_line_errors(self._writer.folder):
            path.write_text("\n".join(lines), encoding="utf-8")


def best_command(engine: str, path: Path, setting: Setting) -> str:
    """The command that serves a setting's file."""
    words = ["python -m service --handler pipeline --config", str(machine.without_paths(str(path)))]
    if engine != "auto":
        words += ["--engine", engine]
    return " ".join([*words, "--workers", str(setting.workers)])


def _variant_run(variant: Variant, serving: Serving) -> VariantRun:
    return VariantRun(variant.name, variant.description, serving.identity.as_record())


def _study(
    seed: int, values: Mapping[str, Sequence[Any]], default: Setting
) -> tuple[optuna.Study, dict[str, Any]]:
    """A search over the places of values in their lists, which knows the default's score of 0."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions: dict[str, Any] = {
        name: optuna.distributions.IntDistribution(0, len(listed) - 1)
        for name, listed in values.items()
    }
    record = default.as_record()
    places = {name: [*listed].index(record[name]) for name, listed in values.items()}
    study.add_trial(
        optuna.trial.create_trial(params=places, distributions=distributions, value=0.0)
    )
    return study, distributions
