"""`utils.test`: load on functions and on folders of images."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import thriftpipe.torchpipe as torchpipe

load_test = torchpipe.utils.test


@pytest.fixture
def folder(tmp_path: Path, photographs: list[bytes]) -> Path:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(photographs[number])
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_of_images_through_a_pipe(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torchpipe.pipe({"decoder": {"backend": "DecodeMat", "instance_num": 2}}) as model:

        def run(images: list[tuple[str, bytes]]) -> None:
            items = [{"data": data} for _, data in images]
            model(items)
            assert all(item["result"].shape[2] == 3 for item in items)

        numbers = load_test.test_from_raw_file(
            run, folder, num_clients=2, batch_size=2, total_number=8
        )
        once = load_test.test_from_raw_file([run, run], folder, num_clients=2, num_preload=0)
    assert (numbers["num_clients"], numbers["total_number"]) == (2, 8)
    assert numbers["throughput::qps"] > 0
    assert numbers["latency::TP99"] >= numbers["latency::TP50"] > 0
    assert once["total_number"] == 3
    assert f"qps:  {numbers['throughput::qps']}" in capsys.readouterr().out


def test_each_client_calls_until_all_is_done() -> None:
    lock, seen = threading.Lock(), []

    class Numbers(load_test.SequentialSampler):
        def forward(self, data: list[Any]) -> None:
            with lock:
                seen.extend(data)

    load_test.test([Numbers(list(range(20)), 2) for _ in range(3)], 20)
    # A few calls before those that count have some of the first numbers.
    assert set(seen) == set(range(20))
    calls = []
    load_test.test_function(lambda: calls.append(1), num_clients=2, total_number=10)
    assert len(calls) >= 10
    ids: list[Any] = []
    load_test.test_from_ids([ids.extend, ids.extend], ids=["a", "b", "c"])
    assert set(ids) == {"a", "b", "c"}


def test_what_a_client_raises_is_raised() -> None:
    def broken() -> None:
        raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        load_test.test_function(broken, total_number=100)


def test_samplers_take_what_they_say() -> None:
    taken: list[Any] = []
    for sampler, start, expected in (
        (load_test.LoopSampler([1, 2, 3], 2), 2, [3, 1]),
        (load_test.SequentialSampler([1, 2, 3], 2), 1, [2, 3]),
        (load_test.RandomSampler([1], 2), 0, [1, 1]),
    ):
        sampler.forward = taken.append  # type: ignore[method-assign]
        sampler(start)
        assert taken.pop() == expected
        assert sampler.batchsize() == 2


def test_wrong_numbers_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no images in"):
        load_test.preload(tmp_path)
    with pytest.raises(ValueError, match="1 functions for 2 clients"):
        load_test.test_function([print], num_clients=2)
    with pytest.raises(ValueError, match="total_number = 0"):
        load_test.test_function(print, total_number=0)
    with pytest.raises(ValueError, match="0 of 1 samples"):
        load_test.FileSampler(["a"], 0)


def test_the_throughput_of_an_onnx_file(tmp_path: Path) -> None:
    import torch

    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    path = torchpipe.utils.models.onnx_export(network, tmp_path / "mean.onnx", (1, 3, 8, 8))
    numbers = load_test.throughput(
        {"model": path, "precision": "fp32"}, num_clients=2, total_number=10
    )
    assert numbers["model"] == path
    assert numbers["throughput::qps"] > 0
    with pytest.raises(ValueError, match="need a model"):
        load_test.throughput({})
