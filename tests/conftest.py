"""What several folders' tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from importlib.resources import files
from pathlib import Path

# Before what loads OpenMP: its threads would wait for work in loops, on cores that others need.
os.environ["OMP_WAIT_POLICY"] = "passive"

import cv2
import pytest
import skimage
import sklearn.datasets

# Photographs whose ImageNet label EfficientNet-Lite0 gets right, with words of that label.
LABELLED_PHOTOGRAPHS = {
    "chelsea.png": ("cat",),
    "coffee.png": ("espresso",),
    "camera.png": ("tripod",),
    "motorcycle_left.png": ("moped",),
    "china.jpg": ("bell cote",),
    "flower.jpg": ("daisy",),
}

# Some 20 s or more each, mostly of waiting for processes: begun last, they would end alone.
_LONG_FILES = tuple(
    f"tests/{name}.py"
    for name in (
        "service/test_shutdown",
        "robustness/test_commands",
        "pipeline/engine_process/test_engine_process",
        "loadtest/measure/test_comparison",
        "pipeline/test_failures_served",
        "loadtest/measure/test_comparison_of_sweeps",
        "service/processes/test_supervisor",
        "loadtest/measure/test_peers",
        "engine/int8/test_quantization",
        "service/images/test_cost",
        "loadtest/measure/test_single",
        "engine/zoo/test_zoo",
        "pipeline/engine_process/test_large_items",
        "service/images/test_limit",
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    places = {name: place for place, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


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
    """Let child processes, of which there are hundreds, keep what they compile.

    Nor shall NumPy start threads in each for a BLAS that none of them uses.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _photograph(name: str) -> Path:
    folders = (
        Path(skimage.__file__).parent / "data",
        Path(sklearn.datasets.__file__).parent / "images",
    )
    return next(folder / name for folder in folders if (folder / name).is_file())


@pytest.fixture(scope="session")
def labelled_photographs() -> list[tuple[bytes, tuple[str, ...]]]:
    """JPEG bytes of real photographs, each with words of which one is in its ImageNet label."""
    return [
        (cv2.imencode(".jpg", cv2.imread(str(_photograph(name))))[1].tobytes(), words)
        for name, words in LABELLED_PHOTOGRAPHS.items()
    ]


@pytest.fixture(scope="session")
def photographs(labelled_photographs: list[tuple[bytes, tuple[str, ...]]]) -> list[bytes]:
    """JPEG bytes of real photographs."""
    return [data for data, _ in labelled_photographs]


@pytest.fixture(scope="session")
def imagenet_labels() -> list[str]:
    """The 1,000 labels, by class id."""
    return (files("service") / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
