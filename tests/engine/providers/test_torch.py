from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.providers.torch import TorchEngine


def test_every_thread_gets_the_share_of_its_own_context(small_model: OnnxModel) -> None:
    """Contexts of two engines in two threads: neither changes the other's number of threads."""
    both_made = threading.Barrier(2)

    def threads_in_context(threads: int) -> int:
        engine = TorchEngine(small_model, EngineOptions(threads_per_context=threads))
        context = engine.create_context()
        both_made.wait()
        context.run([(torch.zeros(1, 3, 8, 8),)])
        return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(threads_in_context, [1, 3])) == [1, 3]


def test_weights_of_convolutions_and_products_are_in_the_precision_that_runs(
    small_model: OnnxModel,
) -> None:
    engine = TorchEngine(small_model, EngineOptions(precision="bf16"))
    assert {buffer.dtype for buffer in engine.module.buffers()} == {torch.bfloat16}


def test_results_need_no_gradient(small_model: OnnxModel) -> None:
    context = TorchEngine(small_model, EngineOptions()).create_context()
    (scores,) = context.run([(torch.zeros(1, 3, 8, 8),)])
    assert not scores.requires_grad
