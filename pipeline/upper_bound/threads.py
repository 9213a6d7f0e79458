"""Preprocessing and engine in the threads of one process, with no RPC, no queue and no waiting.

Backends are built and run by the code of the pipeline's instances (`BatchRunner`): what a service
on the same host reaches less is the price of what stands around it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.cpu.cores import available_cores
from engine.errors import EngineError
from pipeline.backends.assembly import fitting_instance_num, runs_on_gpu
from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.config import NodeConfig, PipelineConfig, parse_config
from pipeline.errors import PipelineConfigError
from pipeline.handler_document import engine_node, handler_document
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.expression import Expression
from pipeline.language.settings import BatchShape
from pipeline.runtime.batch_runner import BatchRunner, RunPlan
from pipeline.runtime.device import Device
from pipeline.runtime.task import Call, Task
from service.handlers.handler_settings import HandlerSettings
from service.malloc_arenas import keep_freed_blocks

ALL, ENGINE, DECODE = "all", "engine", "decode"
PARTS = (ALL, ENGINE, DECODE)
_WARM_UP_S = 0.5


@dataclass(frozen=True)
class _Stage:
    """A node, or what is taken of it.

    Attributes:
        node: its configuration, with the backends that are run.
        device: where they run.
    """

    node: NodeConfig
    device: Device

    def plan(self, engine: str, threads: int, *, is_last: bool) -> RunPlan:
        """How a thread runs them."""
        return RunPlan(self.node, engine, threads, is_last=is_last)


@dataclass(frozen=True)
class _Shared:
    """What the threads of one measurement share.

    Attributes:
        preparing: what a thread runs before the clock starts.
        timed: what is measured.
        engine: a provider's name or "auto".
        threads: how many work side by side.
        start: called by one of them when all are ready; they begin when it returns.
    """

    preparing: Sequence[_Stage]
    timed: Sequence[_Stage]
    engine: str
    threads: int
    start: Callable[[], None]


class _OneBatch(Call):
    """The call of the items of one batch, for which nothing waits.

    Attributes:
        error: why one of them has no result, or None.
    """

    caller = 0
    deadline_s = None

    def __init__(self) -> None:
        self.error: Exception | None = None

    def item_done(self, task: Task) -> None:
        """Keep the first failure."""
        self.error = self.error or task.error


@dataclass(frozen=True)
class Rate:
    """How fast some threads are.

    Attributes:
        images_per_s: images a second, of all together.
        threads: how many worked side by side, in each process.
        on_gpu: whether they did it on a GPU.
        processes: how many of them there were.
    """

    images_per_s: float
    threads: int
    on_gpu: bool
    processes: int = 1


def measure_threads(
    settings: HandlerSettings,
    images: Sequence[bytes],
    batch_size: int,
    duration_s: float,
    part: str = ALL,
    start: Callable[[], None] = lambda: None,
) -> Rate:
    """Images a second of as many threads as suit the engine and the cores.

    Args:
        settings: as the pipeline handler takes them.
        images: encoded photographs; all must decode.
        batch_size: how many images a thread takes through each backend at once.
        duration_s: length of the measured window.
        part: one of PARTS.
        start: called when all threads are ready; they begin when it returns.

    Raises:
        EngineError, PipelineConfigError: the configuration cannot run, or an image is none.
    """
    document = handler_document(settings)
    config = parse_config(document)
    name = engine_node(config)
    shapes = config.nodes[name].settings
    rows = {key: _with_rows(shapes[key], n) for key, n in (("min", 1), ("max", batch_size))}
    document[name] = {**document[name], **rows}
    config = parse_config(document)
    before, model = _split_at_engine(config, name)
    preparing, timed = {
        ALL: ([], [*before, *model]),
        ENGINE: (before, model),
        DECODE: ([], before),
    }[part]
    if not timed:
        raise PipelineConfigError(f"nothing stands before {ENGINE_BACKEND}, so nothing decodes")
    used = [*preparing, *timed]
    on_gpu = any(runs_on_gpu(node.backend, node.settings, settings.engine) for node in used)
    devices = {node.name: Device(0, is_gpu=on_gpu) for node in used}
    threads = _threads(timed, settings.engine, part, on_gpu=on_gpu)
    shared = _Shared(
        [_Stage(node, devices[node.name]) for node in preparing],
        [_Stage(node, devices[node.name]) for node in timed],
        settings.engine,
        threads,
        start,
    )
    try:
        return Rate(_drive(shared, images, batch_size, duration_s), threads, on_gpu)
    finally:
        for device in devices.values():
            device.shared.close()


def _with_rows(shapes: BatchShape | tuple[BatchShape, ...], rows: int) -> str:
    """The same shapes of images, of which a model may need to know, for batches of so many."""
    several = (shapes,) if isinstance(shapes, BatchShape) else shapes
    return ";".join(str(replace(shape, rows=rows)) for shape in several)


def _split_at_engine(
    config: PipelineConfig, engine_name: str
) -> tuple[list[NodeConfig], list[NodeConfig]]:
    """What a request passes before the model, and the model with what follows it."""
    before: list[NodeConfig] = []
    after: list[NodeConfig] = []
    if not config.graph.is_chain:
        raise PipelineConfigError("the in-process upper bound runs nodes of one chain only")
    for name in config.graph.upstream_first():
        node = config.nodes[name]
        if name == engine_name:
            head, tail = _split(node.backend)
            before += [] if head is None else [replace(node, backend=head)]
            after.append(replace(node, backend=tail))
        else:
            (after or before).append(node)
    return before, after


def _split(expression: Expression) -> tuple[Expression | None, Expression]:
    """The expression without its model and what follows that, if anything is left, and the rest.

    S[A,Torch[S[B,TensorrtTensor]]] becomes S[A,Torch[S[B]]] and S[Torch[S[TensorrtTensor]]].
    """
    if expression.name == ENGINE_BACKEND:
        return None, expression
    inner = expression.arguments
    position = next(i for i, entry in enumerate(inner) if ENGINE_BACKEND in entry.names())
    head, tail = _split(inner[position])
    heads = inner[:position] if head is None else (*inner[:position], head)
    before = replace(expression, arguments=heads) if heads else None
    return before, replace(expression, arguments=(tail, *inner[position + 1 :]))


def _threads(timed: Sequence[NodeConfig], engine: str, part: str, *, on_gpu: bool) -> int:
    """As many as keep the cores busy, whatever the file says of instances.

    On a GPU, and for the engine alone, as many as the model has instances.
    """
    of_model = (node for node in timed if ENGINE_BACKEND in node.backend.names())
    node = next(of_model, timed[-1])
    cores = available_cores()
    # No engine makes use of more than two a core.
    wanted = {ALL: 2 * cores, ENGINE: node.instance_num, DECODE: cores}[part]
    if on_gpu:
        wanted = node.instance_num
    return fitting_instance_num(node.backend, wanted, node.settings, engine)


def _drive(shared: _Shared, images: Sequence[bytes], batch_size: int, duration_s: float) -> float:
    """Images a second of all threads together."""
    rates: list[float] = []
    failures: list[Exception] = []
    loading = threading.Lock()
    ready = threading.Barrier(shared.threads, action=shared.start)

    def work(index: int) -> None:
        try:
            with ExitStack() as stack:
                # One after the other: a GPU cannot capture a graph while another thread allocates.
                with loading:
                    own: Sequence[Any] = [*images[index:], *images[:index]]
                    if shared.preparing:
                        own = _prepare(shared, own)
                    chain = stack.enter_context(_chain(shared.timed, shared))
                    inputs = itertools.cycle(own)

                    def run_batch() -> None:
                        _run(chain, [next(inputs) for _ in range(batch_size)])

                    run_batch()
                    keep_freed_blocks()  # as a server does
                ready.wait()
                _images_per_s(run_batch, batch_size, _WARM_UP_S)
                rates.append(_images_per_s(run_batch, batch_size, duration_s))
        except Exception as error:  # noqa: BLE001 (raised again by the caller's thread)
            failures.append(error)
            ready.abort()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(shared.threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        # The threads that the first failure kept from starting report a broken barrier.
        raise failures[0]
    return sum(rates)


def _prepare(shared: _Shared, images: Sequence[bytes]) -> list[Any]:
    """What the model gets of the images, as memory of its own that no backend writes again."""
    with _chain(shared.preparing, shared) as chain:
        prepared = [_run(chain, [data])[0] for data in images]
        return [data.clone() if isinstance(data, torch.Tensor) else data for data in prepared]


def _images_per_s(run_batch: Callable[[], None], batch_size: int, duration_s: float) -> float:
    """One thread's rate over whole batches, at least for `duration_s`."""
    start_s = now_s = time.monotonic()
    finished = 0
    while now_s - start_s < duration_s:
        run_batch()
        finished += batch_size
        now_s = time.monotonic()
    return finished / (now_s - start_s)


@contextmanager
def _chain(stages: Sequence[_Stage], shared: _Shared) -> Iterator[list[BatchRunner]]:
    """What runs the stages in order, built in the calling thread, which has one stream."""
    with ExitStack() as stack:
        chain: list[BatchRunner] = []
        for stage in stages:
            plan = stage.plan(shared.engine, shared.threads, is_last=stage is stages[-1])
            runner = BatchRunner(plan, stage.device)
            runner.build(stream=chain[0].stream if chain else None)
            stack.callback(runner.close)
            chain.append(runner)
        yield chain


def _run(chain: Sequence[BatchRunner], inputs: Sequence[Any]) -> list[Any]:
    """The results of one batch, once they are there; a stage that takes fewer runs in portions."""
    call = _OneBatch()
    tasks = [Task({TASK_DATA_KEY: data}, call) for data in inputs]
    for runner in chain:
        now_s = time.monotonic()
        for task in tasks:
            task.queued_at_s = now_s
        for start in range(0, len(tasks), runner.largest):
            runner.run(tasks[start : start + runner.largest])
        if call.error is not None:
            raise EngineError(f"an image of the folder does not pass the pipeline: {call.error}")
    return [task.item[TASK_RESULT_KEY] for task in tasks]
