"""The baseline on a GPU: what happens outside of its lock, and how large its batches are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from baseline_trt.handler import BaselineHandler, create_handler
from baseline_trt.inference import LockedInference
from service.handlers.handler_settings import HandlerSettings
from service.handlers.outcomes import Scores


def _handler(max_batch_size: int = 4) -> BaselineHandler:
    return create_handler(
        HandlerSettings(model="efficientnet_lite0", max_batch_size=max_batch_size)
    )


def test_a_batch_lies_on_the_gpu_before_the_lock_is_had(photographs: list[bytes]) -> None:
    handler = _handler()
    inference = handler._engine.inference
    assert isinstance(inference, LockedInference)
    engine = handler._engine.engine
    assert engine.device == "cuda"
    copied = threading.Event()
    places: list[torch.device] = []
    to_device = engine.to_device

    def observed(rows: torch.Tensor) -> torch.Tensor:
        on_device = to_device(rows)
        places.append(on_device.device)
        copied.set()
        return on_device

    engine.to_device = observed  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as caller:
        with inference._lock:
            running = caller.submit(handler.classify, photographs[:1], None)
            assert copied.wait(60)
            assert not running.done()
        assert isinstance(running.result()[0], Scores)
    assert places == [torch.device("cuda", 0)]
    handler.close()


def test_images_of_a_call_are_one_batch_and_get_the_scores_that_each_gets_alone(
    photographs: list[bytes],
) -> None:
    handler = _handler(len(photographs))
    inference = handler._engine.inference
    alone = [handler.classify([data], None)[0] for data in photographs]
    batches: list[int] = []
    run = inference._context.run  # type: ignore[attr-defined]

    def observed(items: list[tuple[torch.Tensor]]) -> list[torch.Tensor]:
        assert all(tensor.is_cuda for item in items for tensor in item)
        batches.append(sum(len(item[0]) for item in items))
        outputs: list[torch.Tensor] = run(items)
        return outputs

    inference._context.run = observed  # type: ignore[attr-defined]
    together = handler.classify(photographs, None)
    assert batches == [len(photographs)]
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Scores)
        assert isinstance(other, Scores)
        assert abs(one.probabilities - other.probabilities).max() < 0.03
    handler.close()
