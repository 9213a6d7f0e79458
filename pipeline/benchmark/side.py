"""One side of the benchmark: a process that runs the windows that its stdin asks for.

Both sides run this code and differ in the runtime under it alone. Run as a script this is
torchpipe's side; it needs nothing but the standard library, `interfaces` and torchpipe, so that it
runs in an environment that has nothing of this project. `python -m pipeline.benchmark.own_side` is
ours. `interfaces/benchmark.py` says what is asked and answered, a line each.
"""

from __future__ import annotations

import importlib
import itertools
import os
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeAlias

from interfaces.benchmark import (
    COPY_BACKEND,
    LARGEST_SETTING,
    SLEEP_BACKEND,
    SMALLEST_SETTING,
    WINDOWS,
    ClosedLoop,
    ClosedLoopResult,
    Document,
    Failed,
    LateRequest,
    LateRequestResult,
    Started,
    Waiting,
    WaitingResult,
    Window,
    WindowResult,
)
from interfaces.messages import from_json, to_json

# Keys of an item, as both runtimes spell them.
_DATA, _RESULT = "data", "result"
# Longest wait for what a window has provoked to happen.
_PATIENCE_S = 30.0
# Until threads that call a pipe have certainly put their items into its queue.
_SETTLE_S = 0.02
_LONGEST_WAIT_S = 0.5

Call: TypeAlias = Callable[[dict[str, Any]], object]
OpenPipe: TypeAlias = Callable[[Document], Call]


class WindowError(Exception):
    """A window that cannot be measured; the message is one line."""


class BatchLog:
    """What the sleeping backends have seen since `reset`.

    Attributes:
        batch_sizes: items of every batch that has begun.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything; no batch may be running."""
        self.batch_sizes: list[int] = []
        self._begun = threading.Semaphore(0)

    def begin(self, size: int) -> None:
        """Note a batch of that many items."""
        self.batch_sizes.append(size)
        self._begun.release()

    def wait_for_batch(self) -> None:
        """Block until one more batch has begun.

        Raises:
            WindowError: none does.
        """
        if not self._begun.acquire(timeout=_PATIENCE_S):
            raise WindowError(f"no batch began within {_PATIENCE_S:g} s")


BATCHES = BatchLog()


def sleep_longest(items: Sequence[Any]) -> None:
    """A model that takes as many seconds as the largest `data` says, whatever the batch's size."""
    BATCHES.begin(len(items))
    time.sleep(max(item[_DATA] for item in items))
    copy_data(items)


def copy_data(items: Sequence[Any]) -> None:
    """A model that does nothing."""
    for item in items:
        item[_RESULT] = item[_DATA]


class _Callers:
    """Threads that each call the pipe once."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._threads: list[threading.Thread] = []
        self.errors: list[str] = []

    def start(self, count: int, data: float) -> None:
        """Let so many threads call with an item of that data."""
        threads = [threading.Thread(target=self._run, args=(data,)) for _ in range(count)]
        self._threads += threads
        for thread in threads:
            thread.start()

    def _run(self, data: float) -> None:
        try:
            self._call({_DATA: data})
        except Exception as error:  # noqa: BLE001 (a refusal is a finding)
            first_line = (str(error).splitlines() or [""])[0]
            self.errors.append(f"{type(error).__name__}: {first_line}")

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join()


def in_clients(clients: int, work: Callable[[int], None]) -> tuple[float, float]:
    """Let so many threads begin together, and wait for all of them.

    Args:
        clients: how many.
        work: what each does with its number, from 0.

    Returns:
        Seconds on the clock, and CPU seconds of the whole process, until the last one's end.

    Raises:
        WindowError: what one of them has raised.
    """
    failures: list[str] = []
    ready = threading.Barrier(clients + 1)

    def begin(client: int) -> None:
        try:
            ready.wait()
            work(client)
        except Exception as error:  # noqa: BLE001 (raised again by the main thread)
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=begin, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    start_cpu_s, start_s = time.process_time(), time.perf_counter()
    try:
        ready.wait()
        for thread in threads:
            # A Ctrl-C that comes just before the wait begins does not end it, but is seen after it.
            while thread.is_alive():
                thread.join(_LONGEST_WAIT_S)
    finally:
        # After Ctrl-C none is left to wait for the others.
        ready.abort()
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    if failures:
        raise WindowError(failures[0])
    return wall_s, cpu_s


def closed_loop(call: Call, window: ClosedLoop) -> ClosedLoopResult:
    """Measure threads that each call with one item after the other.

    Raises:
        WindowError: a call failed or gave a wrong result.
    """
    BATCHES.reset()
    latencies_s: list[list[float]] = [[] for _ in range(window.clients)]

    def work(client: int) -> None:
        end_s = time.perf_counter()
        stop_s = end_s + window.duration_s
        while end_s < stop_s:
            item: dict[str, Any] = {_DATA: window.data}
            start_s = time.perf_counter()
            call(item)
            end_s = time.perf_counter()
            if item[_RESULT] != window.data:
                raise WindowError(f"{window.data!r} came back as {item[_RESULT]!r}")
            latencies_s[client].append(end_s - start_s)

    wall_s, cpu_s = in_clients(window.clients, work)
    kept_s = itertools.chain(*latencies_s) if window.with_latencies else ()
    return ClosedLoopResult(
        items=sum(map(len, latencies_s)),
        wall_s=wall_s,
        cpu_s=cpu_s,
        batch_sizes=_by_size(),
        latencies_ms=[round(s * 1000, 3) for s in kept_s],
    )


def late_request(call: Call, window: LateRequest) -> LateRequestResult:
    """Measure single requests that come when nothing else waits.

    Raises:
        WindowError: the request was not alone.
    """
    latencies_ms, batches_before = [], []
    for _ in range(window.trials):
        BATCHES.reset()
        others = _Callers(call)
        others.start(1, window.model_s)
        BATCHES.wait_for_batch()
        if window.busy != 1:
            others.start(window.second_items, window.model_s)
            BATCHES.wait_for_batch()
        if window.busy == 0:
            others.join()
        time.sleep(window.late_after_s)
        before = list(BATCHES.batch_sizes)
        start_s = time.perf_counter()
        call({_DATA: window.model_s})
        latencies_ms.append(round((time.perf_counter() - start_s) * 1000, 3))
        others.join()
        if others.errors or BATCHES.batch_sizes != [*before, 1]:
            raise WindowError(
                f"the late request was not alone: batches of {before} before it, "
                f"{BATCHES.batch_sizes} in the end {' '.join(others.errors)}"
            )
        batches_before.append(before)
    return LateRequestResult(latencies_ms, batches_before)


def waiting(call: Call, window: Waiting) -> WaitingResult:
    """Measure the CPU time of the process while items wait."""
    BATCHES.reset()
    callers = _Callers(call)
    if window.hold_s is not None:
        callers.start(1, window.hold_s)
        BATCHES.wait_for_batch()
    callers.start(window.waiting_items, window.model_s)
    time.sleep(_SETTLE_S)
    begun = len(BATCHES.batch_sizes)
    start_cpu_s, start_s = time.process_time(), time.perf_counter()
    time.sleep(window.wait_s)
    cpu_s, wall_s = time.process_time() - start_cpu_s, time.perf_counter() - start_s
    begun = len(BATCHES.batch_sizes) - begun
    callers.join()
    return WaitingResult(cpu_s, wall_s, begun, callers.errors[0] if callers.errors else None)


def _by_size() -> dict[str, int]:
    """How many batches there were of every size, as JSON takes it."""
    return {str(size): count for size, count in sorted(Counter(BATCHES.batch_sizes).items())}


_MEASURE: Mapping[type, Callable[[Call, Any], WindowResult]] = {
    ClosedLoop: closed_loop,
    LateRequest: late_request,
    Waiting: waiting,
}


class Side:
    """Runs windows on the pipes of one runtime."""

    def __init__(self, open_pipe: OpenPipe) -> None:
        self._open_pipe = open_pipe
        self._pipes: dict[str, Call] = {}

    def run(self, window: Window) -> WindowResult:
        """Measure a window.

        Raises:
            WindowError: it cannot be measured.
        """
        key = repr(window.document)
        if key not in self._pipes:
            self._pipes[key] = self._open_pipe(window.document)
        start_s, before_s = time.perf_counter(), time.process_time()
        result = _MEASURE[type(window)](self._pipes[key], window)
        return replace(
            result,
            elapsed_s=time.perf_counter() - start_s,
            process_cpu_s=(before_s, time.process_time()),
        )


def serve(start: Callable[[], tuple[OpenPipe, dict[str, str]]]) -> None:
    """Measure the windows that stdin asks for, until it ends."""
    # What native libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: Started | WindowResult | Failed) -> None:
        answers.write(to_json(message) + "\n")
        answers.flush()

    try:
        open_pipe, versions = start()
    except ImportError as error:
        answer(Failed(str(error)))
        return
    answer(Started(versions))
    side = Side(open_pipe)
    for line in sys.stdin:
        try:
            answer(side.run(from_json(line, WINDOWS)))
        except Exception as error:  # noqa: BLE001 (the parent tells it, whatever it is)
            answer(Failed(f"{type(error).__name__}: {error}"))


def _start_torchpipe() -> tuple[OpenPipe, dict[str, str]]:
    """Register the backends with torchpipe as its `register` wants them."""
    torchpipe = importlib.import_module("torchpipe")

    class Sleep:
        def init(self, params: Mapping[str, str], options: object = None) -> None:
            del options
            self._smallest = int(params[SMALLEST_SETTING])
            self._largest = int(params[LARGEST_SETTING])

        def min(self) -> int:
            return self._smallest

        def max(self) -> int:
            return self._largest

        def forward(self, items: Sequence[Any]) -> None:
            sleep_longest(items)

    class Copy(Sleep):
        def forward(self, items: Sequence[Any]) -> None:
            copy_data(items)

    torchpipe.register(SLEEP_BACKEND, Sleep)
    torchpipe.register(COPY_BACKEND, Copy)

    def open_pipe(document: Document) -> Call:
        # It takes text only, and writes it into the dictionary that it is given.
        pipe: Call = torchpipe.pipe(
            {
                name: {key: str(value) for key, value in node.items()}
                for name, node in document.items()
            }
        )
        return pipe

    versions = {name: version(name) for name in ("torchpipe", "omniback", "torch")}
    return open_pipe, {"python": platform.python_version(), **versions}


if __name__ == "__main__":
    serve(_start_torchpipe)
    # Without the interpreter's teardown, in which native threads have been seen to abort.
    os._exit(0)
