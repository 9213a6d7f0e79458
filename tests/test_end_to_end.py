"""`python -m service` with either handler, asked over real sockets by Thrift clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import onnx
import pytest

from engine.zoo import open_model
from idl import inference
from tests.serving import TRANSPORTS, connect, refusal, service, service_here

HANDLERS = ("baseline", "pipeline")


def params(number: int, data: bytes) -> Any:
    return inference.InferenceParams(uuid=str(number), data=data)


WORKERS = {"baseline": 1, "pipeline": 2}


@pytest.fixture(scope="module", params=HANDLERS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int, int]]:
    """Handler, port and process id of a server with real ImageNet weights."""
    handler = request.param
    options = ("--model", "efficientnet_lite0", "--workers", str(WORKERS[handler]))
    with service("--handler", handler, *options) as (port, process):
        yield handler, port, process.pid


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_photographs_get_their_labels(
    server: tuple[str, int, int],
    transport: str,
    labelled_photographs: list[tuple[bytes, tuple[str, ...]]],
) -> None:
    client = connect(server[1], transport)
    for number, (data, words) in enumerate(labelled_photographs):
        result = client.infer_batch(params(number, data))
        assert any(word in result.label for word in words), result.label
        assert 0 < result.score <= 1
    client.close()


def test_a_list_gets_results_in_order_and_bad_images_their_own_error(
    server: tuple[str, int, int], labelled_photographs: list[tuple[bytes, tuple[str, ...]]]
) -> None:
    images = [data for data, _ in labelled_photographs]
    truncated = images[0][: len(images[0]) // 2]
    requests = [
        params(number, data) for number, data in enumerate([*images, b"no image", truncated, b""])
    ]
    client = connect(server[1])
    options = inference.InferOptions(top_k=3, with_stage_times=True)
    results = client.infer_images(requests, options)
    assert [result.uuid for result in results] == [request.uuid for request in requests]
    for result, (_, words) in zip(results, labelled_photographs, strict=False):
        assert any(word in result.label for word in words)
        assert len(result.top_k) == 3
        assert result.top_k[0].class_id == result.class_id
        assert all(milliseconds >= 0 for milliseconds in result.stage_times_ms.values())
    for result in results[len(images) :]:
        assert result.error.code == inference.ErrorCode.INVALID_IMAGE
    with pytest.raises(inference.InvalidImage) as caught:
        client.infer_batch(params(7, truncated))
    assert caught.value.uuid == "7"
    client.close()


def test_ten_clients_at_once_get_what_one_alone_gets(
    server: tuple[str, int, int], photographs: list[bytes]
) -> None:
    alone = connect(server[1])
    expected = [alone.infer_batch(params(0, data)).label for data in photographs]
    alone.close()

    def client_thread(_: int) -> list[str]:
        client = connect(server[1])
        labels = [client.infer_batch(params(0, data)).label for data in photographs]
        client.close()
        return labels

    with ThreadPoolExecutor(10) as clients:
        assert all(labels == expected for labels in clients.map(client_thread, range(10)))


def test_a_time_limit_that_cannot_be_kept_is_each_images_error(
    server: tuple[str, int, int], photographs: list[bytes]
) -> None:
    client = connect(server[1])
    requests = [params(number, photographs[0]) for number in range(64)]
    results = client.infer_images(requests, inference.InferOptions(timeout_ms=1))
    late = inference.ErrorCode.DEADLINE_EXCEEDED
    assert all(result.error is not None and result.error.code == late for result in results)
    assert client.infer_batch(params(1, photographs[0])).label
    client.close()


def test_server_info_says_who_answers(server: tuple[str, int, int]) -> None:
    handler, port, pid = server
    client = connect(port)
    info = client.server_info()
    assert (info.handler, info.engine, info.precision) == (handler, "onnxruntime", "fp32")
    assert info.workers == WORKERS[handler]
    assert pid == (info.pid if info.workers == 1 else info.supervisor_pid)
    assert info.model_sha256 == open_model("efficientnet_lite0").sha256
    assert {"thriftpipe", "onnxruntime", "torch", "python"} <= set(info.versions)
    client.close()


def test_a_model_file_with_logits_and_its_own_labels(
    tmp_path: Path, photographs: list[bytes]
) -> None:
    source = open_model("efficientnet_lite0")
    proto = onnx.load(source.path)
    (softmax,) = (node for node in proto.graph.node if node.op_type == "Softmax")
    logits = softmax.input[0]
    proto.graph.node.remove(softmax)
    proto.graph.output[0].name = logits
    path = tmp_path / "mine.onnx"
    onnx.save(proto, path)
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"mine {number}" for number in range(1000)))
    scores = {}
    for handler in HANDLERS:
        arguments = ("--handler", handler, "--model", str(path), "--labels", str(labels))
        with service_here(*arguments) as port:
            client = connect(port)
            result = client.infer_batch(params(0, photographs[0]))
            scores[handler] = (result.label, round(result.score, 3))
            client.close()
    assert scores["baseline"] == scores["pipeline"]
    assert re.fullmatch(r"mine \d+", scores["baseline"][0])
    assert 0 < scores["baseline"][1] <= 1


def test_all_workers_give_the_same_answers(
    server: tuple[str, int, int], labelled_photographs: list[tuple[bytes, tuple[str, ...]]]
) -> None:
    handler, port, _ = server
    answers: dict[int, list[str]] = {}
    with ExitStack() as stack:
        while len(answers) < WORKERS[handler]:
            client = stack.enter_context(closing(connect(port)))
            worker = client.server_info().worker
            answers[worker] = []
            for data, words in labelled_photographs:
                label = client.infer_batch(params(0, data)).label
                assert any(word in label for word in words)
                answers[worker].append(label)
    assert len({tuple(labels) for labels in answers.values()}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--handler", "pipelin"), "did you mean 'pipeline'"),
        (("--handler", "baseline", "--engine", "onnxrutime"), "did you mean 'onnxruntime'"),
        (("--handler", "pipeline", "--model", "resnet5"), "did you mean 'resnet50'"),
        (("--handler", "baseline", "--model", "none.onnx"), "none.onnx"),
        (("--handler", "pipeline", "--config", "none.toml"), "none.toml"),
        (("--handler", "pipeline", "--set", "resnet50.maxx=2"), "did you mean 'max'"),
        (
            ("--handler", "pipeline", "--set", "efficientnet_lite.max=2"),
            "did you mean 'efficientnet_lite0'",
        ),
        (("--handler", "pipeline", "--no-lock"), "--no-lock"),
        (("--handler", "baseline", "--config", "x.toml"), "--config"),
        (("--handler", "baseline", "--engine", "onnxruntime", "--precision", "bf16"), "bf16"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(arguments: tuple[str, ...], message: str) -> None:
    assert message in refusal(*arguments)
