"""`chaos`: everything around the server goes wrong, and each accepted request is still answered."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.images import default_images
from loadtest.progress import Progress
from loadtest.robustness import disturbances, overload, wire
from loadtest.robustness.chaos_promises import answered, load_promises, pings_answered
from loadtest.robustness.colour_model import LABELS, SIDE, encoded, write_colour_model
from loadtest.robustness.load_loop import LoadLoop
from loadtest.robustness.promises import Promise, RunRecord, table
from loadtest.robustness.server_under_test import ServerUnderTest, Watch
from loadtest.robustness.well_behaved import (
    BAD,
    FAILED,
    HUNG,
    LATE,
    LOST,
    REFUSED,
    RIGHT,
    WRONG,
    Habits,
    KnownImage,
    WellBehaved,
    wait_until,
)

COLOURS = "colours"
"""The model of all phases but overload."""

_FLAKY_FILE = Path(__file__).with_name("flaky_backend.py")
_FLAKY_VARIABLE = "FLAKY_PROBABILITY"
_FLAKY_PROBABILITY = "0.1"
_OVERLOAD_WEIGHT = 3
_PING_INTERVAL_S = 0.25
_TIMEOUT_S = 15.0
_OVERLOAD_IMAGES = 6
_OUTCOMES = (RIGHT, BAD, REFUSED, LATE, FAILED, LOST, HUNG, WRONG)

Disturb = Callable[[ServerUnderTest, float, random.Random, Habits], disturbances.Outcome]


@dataclass(frozen=True)
class ChaosSettings:
    """What `chaos` does.

    Attributes:
        duration_s: of all phases together, without the starts of servers.
        phases: which.
        clients: well-behaved ones.
        model: of the overload phase: COLOURS, or what the service takes for --model.
        port: for the servers.
        seed: decides what is random.
    """

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
    "killed-clients": _Kind(disturbances.kill_clients, "plain", (REFUSED,)),
    "half-open": _Kind(disturbances.half_open, "plain"),
    "bad-network": _Kind(disturbances.bad_network, "plain"),
    "slow-readers": _Kind(disturbances.slow_readers, "plain"),
    "killed-worker": _Kind(disturbances.kill_workers, "workers", (LOST,)),
    "flaky-engine": _Kind(disturbances.only_load, "flaky", (FAILED, REFUSED)),
}


@dataclass(frozen=True)
class _Phase:
    """What a phase showed."""

    name: str
    length_s: float
    counts: Counter[str]
    what: str
    promises: list[Promise]


def chaos(settings: ChaosSettings, folder: Path, command: str, progress: Progress) -> None:
    """Run it and write the results.

    Raises:
        LoadTestError: a promise is broken, or a server does not start.
    """
    record = RunRecord("chaos", folder, command, asdict(settings))
    run = _Chaos(settings, progress)
    with tempfile.TemporaryDirectory(prefix="loadtest-") as temporary:
        run.run(Path(temporary))
    rows = [
        (phase.name, f"{phase.length_s:.1f}", *(phase.counts[name] for name in _OUTCOMES))
        for phase in run.phases
    ]
    headings = ("phase", "seconds", *_OUTCOMES)
    promises = [promise for phase in run.phases for promise in phase.promises]
    record.write_rows("outcomes", headings, rows)
    sections = [
        "## Outcomes of the well-behaved clients, by image\n",
        table(headings, rows),
        "",
        *(f"- {phase.name}: {phase.what}" for phase in run.phases),
    ]
    if run.windows:
        values = [
            (w.kind, w.offered_per_s, w.goodput_per_s, w.tp99_ms, str(w.counts))
            for w in run.windows
        ]
        columns = ("window", "offered a second", "right a second", "TP99 ms", "outcomes")
        record.write_rows("overload", columns, values)
        shown = [
            (kind, f"{offered:.1f}", f"{good:.1f}", f"{tp99:.1f}", counts)
            for kind, offered, good, tp99, counts in values
        ]
        sections += ["\n## Overload, window by window\n", table(columns, shown)]
    progress.end_line()
    print(table(headings, rows) + "\n")
    facts = {
        "phases": [
            {
                "name": phase.name,
                "length_s": round(phase.length_s, 3),
                "what": phase.what,
                "outcomes": dict(phase.counts),
            }
            for phase in run.phases
        ]
    }
    record.finish(promises, sections, facts)


class _Chaos:
    def __init__(self, settings: ChaosSettings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._random = random.Random(settings.seed)  # noqa: S311 (guards no secret)
        self.phases: list[_Phase] = []
        self.windows: list[overload.LoadWindow] = []
        weights = len(settings.phases) + (_OVERLOAD_WEIGHT - 1) * ("overload" in settings.phases)
        self._share_s = settings.duration_s / weights

    def run(self, folder: Path) -> None:
        """All phases, one server after the other."""
        colours = write_colour_model(folder)
        base = ["--handler", "pipeline", *colours.arguments()]
        timeouts = [
            *("--message-timeout-s", str(disturbances.TIMEOUT_S)),
            *("--write-timeout-s", str(disturbances.TIMEOUT_S)),
        ]
        config = folder / "flaky.toml"
        config.write_text(_flaky_toml(colours.model), encoding="utf-8")
        servers = {
            "plain": [*base, *timeouts],
            "workers": [*base, *timeouts, "--workers", "2"],
            "flaky": [
                *("--handler", "pipeline", "--labels", str(colours.labels)),
                *("--config", str(config), "--backends", str(_FLAKY_FILE)),
            ],
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
            self._overload(base)

    def _maltreat(self, arguments: Sequence[str], kinds: dict[str, _Kind], name: str) -> None:
        """Run the phases of one server, and stop it as an operator would."""
        with _flaky_variable(), ServerUnderTest(arguments, self._settings.port) as server:
            server.wait_ready()
            for phase, kind in kinds.items():
                self._progress.line(f"chaos: {phase}, {self._share_s:.1f} s")
                self._phase(server, phase, kind)
            self._stop(server, name, tracebacks_are_fine=name == "flaky")

    def _phase(self, server: ServerUnderTest, name: str, kind: _Kind) -> None:
        habits = Habits([KnownImage(*pair) for pair in disturbances.known_images()])
        seed = self._random.getrandbits(32)
        started_s = time.monotonic()
        clients = WellBehaved(self._settings.port, self._settings.clients, habits, seed, 0.005)
        with clients, Watch(server, _PING_INTERVAL_S, _TIMEOUT_S) as watch:
            before = self._settled_descriptors(server)
            what, promises = kind.disturb(server, self._share_s, self._random, habits)
            if kind.server == "plain":
                promises = [*promises, disturbances.descriptors_return(server, before)]
        length_s = time.monotonic() - started_s
        promises = [
            *promises,
            answered(clients.counts, kind.may_fail),
            pings_answered(watch, _TIMEOUT_S, kind.may_fail),
        ]
        if name == "flaky-engine":
            promises.append(
                Promise(
                    "failures of the engine are answered, and the others served",
                    "internal and right answers, ready in the end",
                    f"{clients.counts[FAILED]} internal, {clients.counts[RIGHT]} right",
                    clients.counts[FAILED] > 0 and clients.counts[RIGHT] > 0 and _is_ready(server),
                )
            )
        self._keep(name, length_s, clients.counts, what, promises)
        for wrong in clients.wrongs:
            self._progress.line(f"WRONG: {wrong}")

    def _settled_descriptors(self, server: ServerUnderTest) -> int:
        """Descriptors once all well-behaved clients are connected."""
        time.sleep(3 * _PING_INTERVAL_S)
        usage = server.usage(0.0)
        return 0 if usage is None else usage.descriptors

    def _keep(
        self, name: str, length_s: float, counts: Counter[str], what: str, promises: list[Promise]
    ) -> None:
        named = [Promise(f"{name}: {p.name}", p.bound, p.measured, p.kept) for p in promises]
        self.phases.append(_Phase(name, length_s, counts, what, named))

    def _stop(self, server: ServerUnderTest, name: str, *, tracebacks_are_fine: bool) -> None:
        alive = server.is_alive()
        code = server.stop()
        self.phases[-1].promises.append(
            Promise(
                f"{name} server: alive to the end, then a clean exit",
                "exit code 0 after SIGTERM",
                f"exit code {code}" + ("" if alive else " before SIGTERM"),
                alive and code == 0,
            )
        )
        if not tracebacks_are_fine:
            self.phases[-1].promises.append(
                Promise(
                    f"{name} server: no traceback in the log",
                    "0",
                    str(len(server.tracebacks)) + _last_of(server.tracebacks),
                    not server.tracebacks,
                )
            )

    def _overload(self, base: Sequence[str]) -> None:
        settings = self._settings
        tiny = settings.model == COLOURS
        # Those who wait in the closed loop at capacity, of which none may be refused.
        limit = settings.clients
        arguments = base if tiny else ["--handler", "pipeline", "--model", settings.model]
        with ServerUnderTest([*arguments, "--max-queue", str(limit)], settings.port) as server:
            server.wait_ready()
            files = (
                [encoded(label, 640, 480) for label in LABELS]
                if tiny
                else [image.path.read_bytes() for image in default_images()[:_OVERLOAD_IMAGES]]
            )
            images = overload.learn_labels(settings.port, files, _TIMEOUT_S)
            loop = LoadLoop(settings.port, images, self._random.getrandbits(32))
            started_s = time.monotonic()
            length_s = _OVERLOAD_WEIGHT * self._share_s
            with Watch(server, _PING_INTERVAL_S, _TIMEOUT_S) as watch:
                self.windows = overload.measure(
                    loop,
                    length_s,
                    settings.clients,
                    lambda line: self._progress.line(f"chaos: {line}"),
                )
            loop.close()
            counts: Counter[str] = Counter()
            for window in self.windows:
                counts.update(window.counts)
            promises = [
                *load_promises(self.windows),
                answered(counts, (REFUSED,)),
                pings_answered(watch, _TIMEOUT_S),
            ]
            what = (
                f"{settings.model}, --max-queue {limit}, capacity with {settings.clients} "
                f"closed-loop clients, {overload.OVERLOAD_FACTOR:g} times that open loop"
            )
            self._keep("overload", time.monotonic() - started_s, counts, what, promises)
            self._stop(server, "overload", tracebacks_are_fine=False)


def _last_of(tracebacks: Sequence[Sequence[str]]) -> str:
    return f": {tracebacks[-1][-1]}" if tracebacks else ""


def _is_ready(server: ServerUnderTest) -> bool:
    def asked() -> bool:
        try:
            reply = wire.exchange(server.port, wire.call(b"health", 1), _TIMEOUT_S)
        except (OSError, EOFError, wire.WireError) as error:
            raise LoadTestError(f"health() failed: {error}") from error
        return bool(reply.fields[0][1])

    return wait_until(asked, _TIMEOUT_S)


@contextmanager
def _flaky_variable() -> Iterator[None]:
    os.environ[_FLAKY_VARIABLE] = _FLAKY_PROBABILITY
    try:
        yield
    finally:
        del os.environ[_FLAKY_VARIABLE]


def _flaky_toml(model: Path) -> str:
    """A pipeline of which the engine's node raises at random."""
    return f"""batching_timeout = 5
instance_num = 2

[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = {SIDE}
resize_w = {SIDE}
color = "rgb"
next = "colours"

[colours]
backend = "S[Flaky,TensorrtTensor]"
model = "{model}"
min = "1x3x{SIDE}x{SIDE}"
max = "4x3x{SIDE}x{SIDE}"
mean = "0, 0, 0"
std = "255, 255, 255"
"""
