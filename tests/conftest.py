"""What several folders' tests share."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator
from importlib.resources import files
from pathlib import Path

# Before what loads OpenMP: its threads would wait for work in loops, on cores that others need.
os.environ["OMP_WAIT_POLICY"] = "passive"

import cv2
import pytest
from hypothesis import HealthCheck, settings

from engine.cache.folders import cache_folder
from tests.photographs import photograph_file

# Photographs whose ImageNet label EfficientNet-Lite0 gets right, with words of that label.
LABELLED_PHOTOGRAPHS = {
    "chelsea.png": ("cat",),
    "coffee.png": ("espresso",),
    "camera.png": ("tripod",),
    "motorcycle_left.png": ("moped",),
    "china.jpg": ("bell cote",),
    "flower.jpg": ("daisy",),
}

# Some 10 s or more each, many of waiting for processes: begun last, they would end alone.
_LONG_FILES = tuple(
    f"tests/{name}.py"
    for name in (
        "service/test_shutdown",
        "robustness/test_commands",
        "pipeline/engine_process/test_engine_process",
        "loadtest/measure/test_real_comparison",
        "loadtest/measure/test_comparison",
        "pipeline/test_failures_served",
        "loadtest/measure/test_comparison_of_sweeps",
        "service/processes/test_supervisor",
        "loadtest/measure/test_peers",
        "engine/int8/test_labels_in_int8",
        "engine/int8/test_quantization",
        "service/images/test_cost",
        "loadtest/measure/test_single",
        "engine/zoo/test_zoo",
        "pipeline/engine_process/test_large_items",
        "service/images/test_limit",
        "pipeline/backends/test_inference_backend",
        "engine/providers/test_every_provider",
        "test_end_to_end",
        "baseline_trt/test_baseline_handler",
        "loadtest/measure/test_tuning",
        "loadtest/report/test_document",
        "test_silent_answers",
    )
)


def pytest_configure(config: pytest.Config) -> None:
    """Set up caches: of models and measurements, and of what Python compiles.

    A suite has hundreds of processes. Those that share it out collect all of it, each from another
    file on, and so find most of it compiled.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        # What is measured beside other tests must not decide how this user's services run.
        own = cache_folder()
        os.environ["THRIFTPIPE_CACHE_DIR"] = str(own.with_name(f"{own.name}-tests"))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # What an example takes depends on the machine and its load.
    settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("untimed")
    folder = Path(__file__).parent.resolve()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and [Path(it).resolve() for it in config.args] == [folder]:
        paths = sorted(map(str, folder.rglob("test_*.py")))
        number, count = int(worker.removeprefix("gw")), os.environ["PYTEST_XDIST_WORKER_COUNT"]
        begin = len(paths) * number // int(count)
        config.args = paths[begin:] + paths[:begin]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    places = {name: place for place, name in enumerate(_LONG_FILES)}

    def place(item: pytest.Item) -> tuple[int, str]:
        name = item.nodeid.partition("::")[0]
        return places.get(name, len(places)), name

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Search neither modules nor tests for garbage, while they come and later on: they stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make what a test logged printable: names of files need not be UTF-8, but pytest-xdist's
    messages are, and one that is not ends the whole run."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture(scope="session", autouse=True)
def _children_hear_signals() -> None:
    """Let child processes be interrupted even where the suite runs as a background job.

    A shell's background job starts with SIGINT ignored, one of nohup with SIGHUP, and both hand
    that on to their children. A handler is not handed on.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _children_start_fast() -> None:
    """Let NumPy start no threads in child processes, for a BLAS that none of them uses, and let
    torch look through no package for a device of its own."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


@pytest.fixture(scope="session")
def labelled_photographs() -> list[tuple[bytes, tuple[str, ...]]]:
    """JPEG bytes of real photographs, each with words of which one is in its ImageNet label."""
    return [
        (cv2.imencode(".jpg", cv2.imread(str(photograph_file(name))))[1].tobytes(), words)
        for name, words in LABELLED_PHOTOGRAPHS.items()
    ]


@pytest.fixture(scope="session")
def photographs(labelled_photographs: list[tuple[bytes, tuple[str, ...]]]) -> list[bytes]:
    """JPEG bytes of real photographs."""
    return [data for data, _ in labelled_photographs]


@pytest.fixture
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrate int8 with a tenth of the views, where how good its ranges are is not asked."""
    monkeypatch.setattr("engine.int8.calibration._MIN_VIEWS", 6)


@pytest.fixture(scope="session")
def imagenet_labels() -> list[str]:
    """The 1,000 labels, by class id."""
    return (files("service") / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
