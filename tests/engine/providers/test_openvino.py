from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest
import torch

from engine.cpu.cores import available_cores
from engine.errors import EngineError
from engine.int8.cpu_graph import graph_for_cpu
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.providers import openvino
from engine.providers.openvino import OpenVinoEngine, require_bf16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("contexts", "threads"), [(1, 2), (2, 1)])
def test_openvino_runs_what_it_was_told(
    small_model: OnnxModel, precision: str, contexts: int, threads: int
) -> None:
    """A model for each context up to the cores, in as many threads, and this precision."""
    options = EngineOptions(precision=precision, num_contexts=contexts, threads_per_context=threads)
    models = OpenVinoEngine(small_model, options).models
    assert len(models) == min(contexts, available_cores())
    for compiled in models:
        assert compiled.get_property("NUM_STREAMS") == 1
        assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
        hint = compiled.get_property("INFERENCE_PRECISION_HINT")
        assert hint.get_type_name() == {"fp32": "f32", "bf16": "bf16"}[precision]
        assert compiled.get_property("ENABLE_CPU_PINNING") is False


@pytest.mark.parametrize("unbounded", [False, True])
@pytest.mark.parametrize("copies", [2.0, 1.9])
def test_large_weights_and_many_callers_have_one_model_with_several_runs(
    small_model: OnnxModel, copies: float, unbounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of weights of which so many copies are not too much, on two cores."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("engine.cpu.cores.cgroup_quota_cores", lambda: None)
    size_bytes = len(graph_for_cpu(small_model, EngineOptions(), 127))
    monkeypatch.setattr(openvino, "_MOST_WEIGHTS_BYTES", int(copies * size_bytes))
    engine = OpenVinoEngine(small_model, EngineOptions(num_contexts=2, unbounded=unbounded))
    streams = [compiled.get_property("NUM_STREAMS") for compiled in engine.models]
    threads = [compiled.get_property("INFERENCE_NUM_THREADS") for compiled in engine.models]
    is_shared = unbounded or copies < 2
    assert streams == threads == ([2] if is_shared else [1, 1])
    assert engine.create_context().any_thread is not is_shared


def test_it_computes_in_the_thread_that_calls_it(small_model: OnnxModel) -> None:
    """A thread of its own would have to be woken for each batch, beside those of the pipeline."""
    engine = OpenVinoEngine(small_model, EngineOptions(num_contexts=2))
    context = engine.create_context()
    items = [[spec.allocate(1).zero_() for spec in engine.inputs]]
    context.run(items)
    process_s, thread_s = time.process_time(), time.thread_time()
    for _ in range(200):
        context.run(items)
    process_s, thread_s = time.process_time() - process_s, time.thread_time() - thread_s
    assert thread_s > 0.8 * process_s


def test_more_contexts_than_models_give_their_own_results(small_model: OnnxModel) -> None:
    """They take turns at the models, and each keeps its outputs until its next run."""
    engine = OpenVinoEngine(small_model, EngineOptions(num_contexts=2))
    contexts = [engine.create_context() for _ in range(6)]
    items = [[[torch.full_like(spec.allocate(1), n) for spec in engine.inputs]] for n in range(6)]
    expected = [context.run(item)[0].clone() for context, item in zip(contexts, items, strict=True)]
    with ThreadPoolExecutor(6) as threads:
        running = [
            threads.submit(context.run, item) for context, item in zip(contexts, items, strict=True)
        ]
        found = [run.result()[0] for run in running]
    assert all(map(torch.equal, found, expected))
    assert not torch.equal(found[0], found[5])


def test_in_int8_the_other_layers_run_in_fp32(
    small_model: OnnxModel, tmp_path: Path, photographs: list[bytes]
) -> None:
    """Left alone, it would take bf16 for them where the CPU has it."""
    for index, data in enumerate(photographs):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    options = EngineOptions(precision="int8", calibration_dir=tmp_path)
    model = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
    (compiled,) = OpenVinoEngine(model, options).models
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


@pytest.mark.parametrize("rebuilt", [0, 1])
def test_a_rebuilt_context_takes_the_place_of_the_one_that_was_closed(
    small_model: OnnxModel, rebuilt: int
) -> None:
    """Two contexts of one model would wait for each other, and the other model for nobody."""
    engine = OpenVinoEngine(small_model, EngineOptions(num_contexts=2))
    contexts = [engine.create_context() for _ in range(2)]
    places = [context.compiled for context in contexts]
    contexts[rebuilt].close()
    assert engine.create_context().compiled is places[rebuilt]


def test_contexts_beyond_the_cores_get_no_threads_of_their_own(small_model: OnnxModel) -> None:
    options = EngineOptions(num_contexts=available_cores() + 1, threads_per_context=1)
    assert len(OpenVinoEngine(small_model, options).models) == available_cores()


def test_a_cpu_without_bf16_is_told_what_it_runs() -> None:
    with pytest.raises(EngineError, match=r"no bf16 instructions .* use precision fp32"):
        require_bf16(["FP32", "INT8", "WINOGRAD"])
    require_bf16(["FP32", "BF16"])


def test_a_graph_that_it_cannot_load_is_one_line(
    small_proto: Callable[..., onnx.ModelProto], tmp_path: Path
) -> None:
    proto = small_proto()
    proto.graph.node[0].domain = "elsewhere"
    proto.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    onnx.save(proto, tmp_path / "m.onnx")
    model = OnnxModel.load(tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"openvino cannot load .*m\.onnx: \S") as caught:
        OpenVinoEngine(model, EngineOptions())
    assert "\n" not in str(caught.value)
    assert "Conv" in str(caught.value)


_FIRST_RUNS = """
import os, signal, sys, threading
from engine.options import EngineOptions
from engine.onnx_graph.model import OnnxModel
from engine.providers.openvino import OpenVinoEngine


def first_runs():
    engine = OpenVinoEngine(OnnxModel.load(sys.argv[1]), EngineOptions(num_contexts=2))
    barrier = threading.Barrier(4)

    def first_run():
        barrier.wait()
        engine.create_context().run([[spec.allocate(1).zero_() for spec in engine.inputs]])

    threads = [threading.Thread(target=first_run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


for _ in range(8):
    child = os.fork()
    if not child:
        # As it locks up with the interpreter's lock, only a signal that kills ends it.
        signal.alarm(60)
        first_runs()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_the_first_runs_of_a_process_may_come_at_the_same_time(small_file: Path) -> None:
    """OpenVINO's binding locks up in one process out of four if it makes its first tensors so.

    The processes are forks of one that has imported everything and has no threads yet.
    """
    subprocess.run([sys.executable, "-c", _FIRST_RUNS, str(small_file)], check=True)


_SIGNAL_AFTER_TWO = """
import signal, sys
from engine.options import EngineOptions
from engine.onnx_graph.model import OnnxModel
from engine.providers.openvino import OpenVinoEngine

model = OnnxModel.load(sys.argv[1])
first, second = (OpenVinoEngine(model, EngineOptions()) for _ in range(2))
del first, second
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
signal.raise_signal(signal.SIGTERM)
"""


def test_signals_are_handled_after_engines_have_gone(small_file: Path) -> None:
    """The first one goes first, with the stack for signals that its plugin would have set."""
    program = [sys.executable, "-c", _SIGNAL_AFTER_TWO, str(small_file)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended.stderr
