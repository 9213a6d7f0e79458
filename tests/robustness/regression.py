"""`regression`: this checkout against another commit, in alternating windows of one run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.load.images import default_images
from loadtest.progress import Progress
from loadtest.records.run import Check, new_run
from loadtest.servers.server_process import ServerProcess, require_free_port, service_command
from measurement.statistics import paired_ratio
from tests.robustness import overload
from tests.robustness.checking_clients import REFUSED, RIGHT
from tests.robustness.load_loop import LoadLoop
from tests.robustness.results import finish

ITEM = "item"
"""Through three nodes in process, without a server."""
NULL = "null"
"""A request to the handler that runs no model."""
MODELS = ("efficientnet_lite0", "resnet50")
ROWS = (ITEM, NULL, *MODELS)
_LEAST_RATIO = 0.98
_HOST = "127.0.0.1"
_TIMEOUT_S = 180.0
ROOT = Path(__file__).parents[2]
COLUMNS = ("row", "pair", "this_per_s", "other_per_s")

Measure = Callable[[float], float]
"""Runs a window of so many seconds; the right answers, or items, a second."""

Start = Callable[[Path, int], AbstractContextManager[Measure]]
"""Starts what is measured, from the checkout in that folder; a server on that port."""


@dataclass(frozen=True)
class RegressionSettings:
    """What `regression` does; attributes are the options of the same name."""

    against: str
    rows: tuple[str, ...]
    pairs: int
    duration_s: float
    clients: int
    port: int
    seed: int


def regression(
    settings: RegressionSettings, folder: Path, command: str, progress: Progress
) -> None:
    """Run it and write the results.

    Raises:
        LoadTestError: git knows no such commit, a server does not start, or a row is slower.
    """
    run = new_run("regression", command, asdict(settings))
    rows: list[tuple[str, int, float, float]] = []
    with checkout(settings.against) as old:
        for name, start in _rows(settings):
            with ExitStack() as running:
                sides: list[Measure] = [
                    running.enter_context(start(tree, settings.port + number))
                    for number, tree in enumerate((ROOT, old))
                ]
                for side in sides:
                    side(settings.duration_s)  # warm-up
                for pair in range(settings.pairs):
                    figures = [0.0, 0.0]
                    # Each side is first as often as second.
                    for number in (0, 1) if pair % 2 == 0 else (1, 0):
                        figures[number] = sides[number](settings.duration_s)
                    rows.append((name, pair + 1, figures[0], figures[1]))
                    progress.line(f"{name}: {figures[0]:.1f} and {figures[1]:.1f} a second")
    finish(run, folder, _checks(rows), {}, {"pairs": (COLUMNS, rows)})


def _checks(rows: Sequence[tuple[str, int, float, float]]) -> list[Check]:
    checks = []
    for name in dict.fromkeys(row[0] for row in rows):
        pairs = [row for row in rows if row[0] == name]
        ratio = paired_ratio([row[2] for row in pairs], [row[3] for row in pairs])
        checks.append(
            Check(
                f"{name}: a second, over the other commit's",
                f"at least {_LEAST_RATIO:g}",
                f"{ratio.spread.median:.3f} (median of {ratio.pairs} pairs, 95 % interval of the "
                f"mean {ratio.interval.text(3)})",
                ratio.spread.median >= _LEAST_RATIO,
            )
        )
    return checks


@contextmanager
def checkout(ref: str) -> Iterator[Path]:
    """The files of that commit, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="loadtest-") as temporary:
        archive = ["git", "-C", str(ROOT), "archive", "--format=tar", f"{ref}^{{commit}}"]
        found = subprocess.run(archive, capture_output=True)
        if found.returncode != 0:
            raise LoadTestError(f"--against {ref}: {found.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", temporary], input=found.stdout, check=True)
        yield Path(temporary)


def _rows(settings: RegressionSettings) -> Iterator[tuple[str, Start]]:
    if ITEM in settings.rows:
        yield ITEM, _item_side
    if NULL in settings.rows:
        yield NULL, partial(_served_side, ["--handler", "null"], [b"no image"], settings)
    for model in MODELS:
        if model in settings.rows:
            images = [image.path.read_bytes() for image in default_images()]
            for handler in ("pipeline", "baseline"):
                arguments = ["--handler", handler, "--model", model, "--workers", "1"]
                start = partial(_served_side, arguments, images, settings)
                yield f"{model}, {handler}", start


def in_tree(tree: Path, words: Sequence[str]) -> list[str]:
    """The command with that checkout as its working directory and first place of imports."""
    return ["env", "-C", str(tree), f"PYTHONPATH={tree}", *words]


@contextmanager
def _item_side(tree: Path, port: int) -> Iterator[Measure]:
    del port
    script = str(Path(__file__).with_name("item_overhead.py"))
    with subprocess.Popen(
        in_tree(tree, [sys.executable, script]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        asked, answered = process.stdin, process.stdout
        assert asked is not None
        assert answered is not None

        def measure(length_s: float) -> float:
            print(length_s, file=asked, flush=True)
            items = answered.readline()
            if not items:
                raise LoadTestError(f"the pipeline of {tree} ended; its last lines are above")
            return int(items) / length_s

        yield measure
        asked.close()


@contextmanager
def _served_side(
    arguments: list[str], images: list[bytes], settings: RegressionSettings, tree: Path, port: int
) -> Iterator[Measure]:
    require_free_port(_HOST, port)
    command = in_tree(tree, service_command(arguments, _HOST, port))
    with ServerProcess(command, f"the server of {tree}", _TIMEOUT_S) as server:
        server.wait_ready()
        known = overload.learn_labels(port, images, _TIMEOUT_S)
        loop = LoadLoop(port, known, settings.seed, settings.clients)

        def measure(length_s: float) -> float:
            answers = loop.closed(length_s, settings.clients)
            faults = {answer.outcome for answer in answers} - {RIGHT, REFUSED}
            if faults:
                raise LoadTestError(f"the server of {tree} gave other answers: {faults}")
            right = [answer for answer in answers if answer.outcome == RIGHT]
            return sum(a.due_s + a.latency_s <= length_s for a in right) / length_s

        yield measure
        loop.close()
        server.stop()
