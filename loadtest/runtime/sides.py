"""The sides of a measurement of the runtime, each a process, and their interleaved windows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import interfaces
from interfaces.benchmark import ANSWERS, Failed, Started, Window, WindowResult
from interfaces.messages import from_json, to_json
from loadtest.errors import LoadTestError
from loadtest.processes.child_process import ChildProcess
from loadtest.records import machine
from loadtest.records.run import Run, new_run
from loadtest.runtime.parts import OURS, REFERENCE, Part

# torchpipe compiles its core at its first import, which takes minutes.
_START_LIMIT_S = 900.0
# Longer than any window that ends at all.
_WINDOW_LIMIT_S = 120.0
# Runs a script with `interfaces` beside it, in an environment that has nothing of this project.
_RUN_SCRIPT = """
import runpy, sys
script, folder = sys.argv[1:]
sys.path.append(folder)
import interfaces.benchmark, interfaces.messages
sys.path.remove(folder)
runpy.run_path(script, run_name="__main__")
"""


_Answer = TypeVar("_Answer", Started, WindowResult)


class Side(Protocol):
    """What runs windows."""

    name: str

    def run(self, window: Window) -> WindowResult:
        """Measure a window."""


class SideProcess:
    """One side: its process is started here and ends with the context, or with this process.

    Args:
        name: OURS or REFERENCE.
        command: program and arguments.

    Raises:
        LoadTestError: it does not start, and why.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._process = ChildProcess(command, f"{name}'s side", merge_stderr=False)
        try:
            self.versions: dict[str, str] = self._answer(_START_LIMIT_S, Started).versions
        except BaseException:
            self._process.close()
            raise

    def run(self, window: Window) -> WindowResult:
        """Let the side measure a window.

        Raises:
            LoadTestError: the window cannot be measured, or the process is gone.
        """
        self._process.write_line(to_json(window))
        return self._answer(_WINDOW_LIMIT_S, WindowResult)

    def _answer(self, limit_s: float, kind: type[_Answer]) -> _Answer:
        line = self._process.next_line(
            time.monotonic() + limit_s, f"no answer within {limit_s:g} s"
        )
        if line is None:
            raise LoadTestError(self._process.ended())
        answer = from_json(line, ANSWERS)
        if isinstance(answer, Failed):
            raise LoadTestError(f"{self.name}: {' '.join(answer.reason.split())}")
        if not isinstance(answer, kind):
            raise LoadTestError(f"{self.name}: answered {line!r} in place of a {kind.__name__}")
        return answer

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.close()


def start_own_side() -> SideProcess:
    """This project's side, in this interpreter's environment."""
    return SideProcess(OURS, [sys.executable, "-m", "pipeline.benchmark.own_side"])


def start_reference(python: str) -> SideProcess:
    """Torchpipe's side, in the environment of that interpreter.

    Raises:
        LoadTestError: it cannot be imported there.
    """
    # Found and not imported: it runs where nothing of this project is installed.
    spec = find_spec("pipeline")
    if spec is None or not spec.submodule_search_locations:
        raise LoadTestError("the package 'pipeline' is not installed")
    script = Path(spec.submodule_search_locations[0]) / "benchmark" / "side.py"
    folder = Path(interfaces.__path__[0]).parent
    return SideProcess(REFERENCE, [python, "-I", "-c", _RUN_SCRIPT, str(script), str(folder)])


def measure_sides(
    kind: str,
    parts: Sequence[Part],
    settings: dict[str, Any],
    reference_python: str,
    command: str,
    progress: Callable[[str], None],
) -> Run:
    """Run all parts on our side and, where it is installed, on torchpipe's.

    Raises:
        LoadTestError: our side does not start, or a window cannot be measured.
    """
    run = new_run(kind, command, settings)
    with ExitStack() as stack:
        sides = [stack.enter_context(start_own_side())]
        missing = None
        progress("starting torchpipe; its core is compiled at its first import, for some minutes")
        try:
            sides.append(stack.enter_context(start_reference(reference_python)))
        except LoadTestError as error:
            missing = machine.without_paths(str(error))
            progress(f"measuring thriftpipe only: {missing}")
        run.versions.clear()
        run.versions.update({side.name: side.versions for side in sides})
        run.results.update(
            reference_missing=missing,
            parts=[part.record() for part in parts],
            windows=take_turns(parts, sides, settings["repeats"], progress),
        )
    return run


def take_turns(
    parts: Sequence[Part], sides: Sequence[Side], repeats: int, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run all windows: the sides take turns at each part, and every other repeat in reverse order.

    Returns:
        A dictionary a window: `part`, `side`, `repeat` (from 0) and what the window returned.

    Raises:
        LoadTestError: a window cannot be measured.
    """
    progress("warming up")
    for part in parts:
        for side in sides:
            side.run(part.warm_up_for(side.name))
    windows = []
    for repeat in range(repeats):
        progress(f"repeat {repeat + 1} of {repeats}")
        for part in parts:
            for side in sides if repeat % 2 == 0 else reversed(sides):
                result = side.run(part.window_for(side.name))
                windows.append(
                    {"part": part.name, "side": side.name, "repeat": repeat, **vars(result)}
                )
    return windows
