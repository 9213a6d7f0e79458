"""`chaos`: everything around the server goes wrong, and each accepted request is still answered."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.load.images import default_images
from loadtest.progress import Progress
from loadtest.records.run import Check, new_run
from tests.robustness import fairness, faults, overload, wire
from tests.robustness.chaos_checks import fairness_checks, load_checks
from tests.robustness.checking_clients import (
    FAILED,
    LOST,
    OUTCOMES,
    REFUSED,
    RIGHT,
    CheckingClients,
    Habits,
    KnownImage,
    wait_until,
)
from tests.robustness.checks import answered, clean_exit, no_traceback, pings_answered
from tests.robustness.colour_model import (
    LABELS,
    encoded,
    write_colour_model,
)
from tests.robustness.disturbed_server import disturbed_server
from tests.robustness.load_loop import LoadLoop
from tests.robustness.results import Table, finish
from tests.robustness.server_under_test import ServerUnderTest, Watch

COLOURS = "colours"
"""The model of all phases but overload and fairness."""

_FLAKY = ("Flaky", "probability = 0.1\ninstance_num = 2")
# A rate that one process can send ten times over, on every machine.
_PACED = ("Paced", "item_ms = 10")
_OVERLOAD_WEIGHT, _FAIRNESS_WEIGHT = 6, 2
_WEIGHTS = {"overload": _OVERLOAD_WEIGHT, "fairness": _FAIRNESS_WEIGHT}
_PING_INTERVAL_S = 0.25
_TIMEOUT_S = 15.0
_OVERLOAD_IMAGES = 6

Disturb = Callable[[ServerUnderTest, float, random.Random, Habits], faults.Outcome]


@dataclass(frozen=True)
class ChaosSettings:
    """What `chaos` does; attributes are the options of the same name."""

    duration_s: float
    phases: tuple[str, ...]
    clients: int
    model: str
    port: int
    seed: int


@dataclass(frozen=True)
class _Kind:
    """One phase.

    Attributes:
        disturb: what happens.
        server: which server it happens to.
        may_fail: outcomes of the well-behaved clients that this phase is allowed to cause.
    """

    disturb: Disturb
    server: str
    may_fail: tuple[str, ...] = ()


_KINDS = {
    "killed-clients": _Kind(faults.kill_clients, "plain", (REFUSED,)),
    "half-open": _Kind(faults.half_open, "plain"),
    "bad-network": _Kind(faults.bad_network, "plain"),
    "slow-readers": _Kind(faults.slow_readers, "plain"),
    "killed-worker": _Kind(faults.kill_workers, "workers", (LOST,)),
    "flaky-engine": _Kind(faults.only_load, "flaky", (FAILED, REFUSED)),
}


@dataclass(frozen=True)
class _Phase:
    """What a phase showed."""

    name: str
    length_s: float
    counts: Counter[str]
    what: str
    checks: list[Check]


def chaos(settings: ChaosSettings, folder: Path, command: str, progress: Progress) -> None:
    """Run it and write the results.

    Raises:
        LoadTestError: a check failed, or a server does not start.
    """
    record = new_run("chaos", command, asdict(settings))
    run = _Chaos(settings, progress)
    with tempfile.TemporaryDirectory(prefix="loadtest-") as temporary:
        run.run(Path(temporary))
    phases = [
        {
            "name": phase.name,
            "length_s": round(phase.length_s, 3),
            "what": phase.what,
            "outcomes": {name: phase.counts[name] for name in OUTCOMES if phase.counts[name]},
        }
        for phase in run.phases
    ]
    rows = [
        (phase.name, f"{phase.length_s:.1f}", *(phase.counts[name] for name in OUTCOMES))
        for phase in run.phases
    ]
    tables: dict[str, Table] = {"outcomes": (("phase", "seconds", *OUTCOMES), rows)}
    if run.windows:
        columns = ("window", *(field.name for field in fields(overload.LoadWindow)[1:]))
        tables["overload"] = (columns, [tuple(vars(window).values()) for window in run.windows])
    checks = [check for phase in run.phases for check in phase.checks]
    progress.end_line()
    finish(record, folder, checks, {"phases": phases}, tables)


class _Chaos:
    def __init__(self, settings: ChaosSettings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._random = random.Random(settings.seed)  # noqa: S311 (guards no secret)
        self.phases: list[_Phase] = []
        self.windows: list[overload.LoadWindow] = []
        self._share_s = settings.duration_s / sum(
            _WEIGHTS.get(phase, 1) for phase in settings.phases
        )

    def run(self, folder: Path) -> None:
        """All phases, one server after the other."""
        colours = write_colour_model(folder)
        base = ["--handler", "pipeline", *colours.arguments()]
        timeouts = [
            *("--message-timeout-s", str(faults.TIMEOUT_S)),
            *("--write-timeout-s", str(faults.TIMEOUT_S)),
        ]
        flaky, paced = (disturbed_server(folder, colours, *engine) for engine in (_FLAKY, _PACED))
        servers = {
            "plain": [*base, *timeouts],
            "workers": [*base, *timeouts, "--workers", "2"],
            "flaky": flaky,
        }
        for name, arguments in servers.items():
            kinds = {
                phase: kind
                for phase, kind in _KINDS.items()
                if kind.server == name and phase in self._settings.phases
            }
            if kinds:
                self._maltreat(arguments, kinds, name)
        if "overload" in self._settings.phases:
            self._overload(paced)
        if "fairness" in self._settings.phases:
            self._fairness(base)

    def _maltreat(self, arguments: Sequence[str], kinds: dict[str, _Kind], name: str) -> None:
        """Run the phases of one server, and stop it as an operator would."""
        with ServerUnderTest(arguments, self._settings.port) as server:
            server.wait_ready()
            for phase, kind in kinds.items():
                self._progress.line(f"chaos: {phase}, {self._share_s:.1f} s")
                self._phase(server, phase, kind)
            self._stop(server, name, tracebacks_are_fine=name == "flaky")

    def _phase(self, server: ServerUnderTest, name: str, kind: _Kind) -> None:
        habits = Habits([KnownImage(*pair) for pair in faults.known_images()])
        seed = self._random.getrandbits(32)
        started_s = time.monotonic()
        clients = CheckingClients(self._settings.port, self._settings.clients, habits, seed, 0.005)
        with clients, Watch(server, _PING_INTERVAL_S, _TIMEOUT_S) as watch:
            before = self._settled_descriptors(server)
            what, checks = kind.disturb(server, self._share_s, self._random, habits)
            if kind.server == "plain":
                checks = [*checks, faults.descriptors_return(server, before)]
        length_s = time.monotonic() - started_s
        checks = [
            *checks,
            answered(clients.counts, kind.may_fail),
            pings_answered(watch, _TIMEOUT_S, kind.may_fail),
        ]
        if name == "flaky-engine":
            checks.append(
                Check(
                    "failures of the engine are answered, and the others served",
                    "internal and right answers, ready in the end",
                    f"{clients.counts[FAILED]} internal, {clients.counts[RIGHT]} right",
                    clients.counts[FAILED] > 0 and clients.counts[RIGHT] > 0 and _is_ready(server),
                )
            )
        self._keep(name, length_s, clients.counts, what, checks)
        for wrong in clients.wrongs:
            self._progress.line(f"WRONG: {wrong}")

    def _settled_descriptors(self, server: ServerUnderTest) -> int:
        """Descriptors once all well-behaved clients are connected."""
        time.sleep(3 * _PING_INTERVAL_S)
        return server.descriptors()

    def _keep(
        self, name: str, length_s: float, counts: Counter[str], what: str, checks: list[Check]
    ) -> None:
        named = [Check(f"{name}: {p.name}", p.bound, p.measured, p.met) for p in checks]
        self.phases.append(_Phase(name, length_s, counts, what, named))

    def _stop(self, server: ServerUnderTest, name: str, *, tracebacks_are_fine: bool) -> None:
        alive = server.is_alive()
        title = f"{name} server: "
        checks = self.phases[-1].checks
        checks.append(clean_exit(server.terminate(), was_alive=alive, name=title))
        if not tracebacks_are_fine:
            checks.append(no_traceback(server, title))

    @contextmanager
    def _loaded(
        self, colours: Sequence[str], name: str, *options: str
    ) -> Iterator[Callable[[Counter[str], str, list[Check]], None]]:
        """A server with the model that is loaded, otherwise at its defaults, for one phase.

        `colours` are the arguments for the tiny model, if that is the one.
        Gives what keeps the phase: its outcomes, what it was in words, and its own checks.
        """
        tiny = self._settings.model == COLOURS
        arguments = colours if tiny else ["--handler", "pipeline", "--model", self._settings.model]
        with ServerUnderTest([*arguments, *options], self._settings.port) as server:
            server.wait_ready()
            started_s = time.monotonic()
            with Watch(server, _PING_INTERVAL_S, _TIMEOUT_S) as watch:

                def keep(counts: Counter[str], what: str, checks: list[Check]) -> None:
                    checks = [
                        *checks,
                        answered(counts, (REFUSED,)),
                        pings_answered(watch, _TIMEOUT_S),
                    ]
                    self._keep(name, time.monotonic() - started_s, counts, what, checks)

                yield keep
            self._stop(server, name, tracebacks_are_fine=False)

    def _learnt(self, files: Sequence[bytes]) -> list[KnownImage]:
        return overload.learn_labels(self._settings.port, files, _TIMEOUT_S)

    def _overload(self, colours: Sequence[str]) -> None:
        settings = self._settings
        with self._loaded(colours, "overload") as keep:
            files = (
                [encoded(label, 640, 480) for label in LABELS]
                if settings.model == COLOURS
                else [image.path.read_bytes() for image in default_images()[:_OVERLOAD_IMAGES]]
            )
            seed = self._random.getrandbits(32)
            loop = LoadLoop(settings.port, self._learnt(files), seed)
            self.windows = overload.measure(
                loop,
                _OVERLOAD_WEIGHT * self._share_s,
                settings.clients,
                lambda line: self._progress.line(f"chaos: {line}"),
            )
            loop.close()
            counts: Counter[str] = Counter()
            for window in self.windows:
                counts.update(window.counts)
            factors = ", ".join(f"{factor:g}" for factor in overload.FACTORS)
            keep(
                counts,
                f"{settings.model}, capacity with {settings.clients} closed-loop clients, "
                f"{factors} times that open loop",
                load_checks(self.windows, len(os.sched_getaffinity(0))),
            )

    def _fairness(self, colours: Sequence[str]) -> None:
        # On a slow machine bulk calls take longer than calls may by default.
        with self._loaded(colours, "fairness", "--default-timeout-ms", "0") as keep:
            # Of a size that 256 of them fit into a message.
            images = self._learnt([encoded(label, 320, 240) for label in LABELS])
            length_s = _FAIRNESS_WEIGHT * self._share_s
            found = fairness.measure(self._settings.port, images, length_s)
            keep(
                found.counts,
                f"{self._settings.model}, one caller of single images alone, and beside "
                f"{fairness.BULK_CALLERS} callers of {fairness.BULK_IMAGES} images a call",
                fairness_checks(found),
            )


def _is_ready(server: ServerUnderTest) -> bool:
    def asked() -> bool:
        try:
            reply = wire.exchange(server.port, wire.call(b"health", 1), _TIMEOUT_S)
        except (OSError, EOFError, wire.WireError) as error:
            raise LoadTestError(f"health() failed: {error}") from error
        return bool(reply.fields[0][1])

    return wait_until(asked, _TIMEOUT_S)
