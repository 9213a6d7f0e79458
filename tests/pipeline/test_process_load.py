"""What the pipeline's settings ask of each process of a server."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import onnx
import pytest

from idl import inference
from interfaces.messages import from_json, to_json
from pipeline.process_load import process_load
from service.handlers.handler_settings import HandlerSettings
from service.handlers.process_load import MISTAKE_EXIT_CODE, ProcessLoad
from tests.robustness.colour_model import encoded, write_colour_model
from tests.serving import ON_EIGHT_CORES, ServerProcess, connect

ON_CPU = "onnxruntime"
FILE = """
instance_num = 3
[decode]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 32
resize_w = 32
next = "infer"
[infer]
backend = "TensorrtTensor"
model = "colours.onnx"
instance_num = 2
"""


def _run(settings: HandlerSettings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.process_load"],
        input=to_json(settings),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_shipped_files_follow_the_cores() -> None:
    """Of each the model is told, and neither is it opened nor a GPU asked."""
    load = process_load(HandlerSettings(engine=ON_CPU))
    assert load == ProcessLoad(model_bytes=load.model_bytes)
    assert load.model_bytes > 90_000_000
    gpu = process_load(HandlerSettings(engine=ON_CPU, decode="gpu"))
    assert (gpu.gpus, gpu.decodes_on_gpu, gpu.shares_engine, gpu.instances) == (1, True, True, 0)
    two = process_load(HandlerSettings(engine=ON_CPU, decode="gpu", devices=(0, 3)))
    assert (two.gpus, two.shares_engine) == (2, True)


@pytest.mark.parametrize(
    ("overrides", "instances"),
    [
        ({"batching_timeout": "0"}, 0),
        ({"instance_num": "5"}, 5),
        ({"cpu_decoder.instance_num": "7"}, 7),
        ({"cpu_decoder.instance_num": "2", "resnet50.instance_num": "9"}, 9),
    ],
)
def test_instance_numbers_of_the_command_line_count(
    overrides: dict[str, str], instances: int
) -> None:
    settings = HandlerSettings(engine=ON_CPU, overrides=overrides)
    assert process_load(settings).instances == instances


def test_instance_numbers_of_a_file_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(FILE)
    write_colour_model(tmp_path)
    settings = HandlerSettings(engine=ON_CPU, config="own.toml")
    load = process_load(settings)
    assert load == ProcessLoad(instances=3, model_bytes=(tmp_path / "colours.onnx").stat().st_size)
    # Those of the nodes that workers leave to the engine process do not.
    shared = HandlerSettings(
        engine=ON_CPU,
        config="own.toml",
        overrides={"shared_engine": "always", "infer.instance_num": "8"},
    )
    assert (process_load(shared).instances, process_load(shared).shares_engine) == (3, True)


def test_nodes_on_a_gpu_that_each_process_has() -> None:
    settings = HandlerSettings(engine=ON_CPU, decode="gpu", overrides={"shared_engine": "never"})
    load = process_load(settings)
    assert (load.gpus, load.shares_engine, load.decodes_on_gpu) == (1, False, False)


def test_weights_beside_the_model_count(tmp_path: Path) -> None:
    colours = write_colour_model(tmp_path)
    model = onnx.load(colours.model)
    path = tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    weights_bytes = (tmp_path / "weights.bin").stat().st_size
    assert weights_bytes > 0
    load = process_load(HandlerSettings(engine=ON_CPU, model=str(path)))
    assert load.model_bytes == path.stat().st_size + weights_bytes
    assert process_load(HandlerSettings(engine=ON_CPU, model="none.onnx")).model_bytes == 0


def test_a_mistake_in_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[a]\nbackend = 'DecodeMta'\n")
    done = _run(HandlerSettings(config=str(tmp_path / "own.toml")))
    assert (done.returncode, done.stdout) == (MISTAKE_EXIT_CODE, "")
    assert "did you mean 'DecodeMat'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_with_as_many_processes_as_suit_the_host(tmp_path: Path) -> None:
    """A real one: the threads of all its processes fit the cores that it takes for its own."""
    colours = write_colour_model(tmp_path)
    arguments = ("--handler", "pipeline", "--engine", ON_CPU, "--port", "0", *colours.arguments())
    server = ServerProcess(["-c", ON_EIGHT_CORES, *arguments])
    try:
        port = server.port()
        with closing(connect(port)) as one, closing(connect(port)) as two:
            infos = [client.server_info() for client in (one, two)]
            for label, client in zip(("red", "blue"), (one, two), strict=True):
                data = encoded(label, 40, 40)
                assert client.infer_batch(inference.InferenceParams("u", data)).label == label
        server.process.terminate()
        assert server.wait() == 0
    finally:
        server.close()
    assert {(info.worker, info.workers) for info in infos} == {(0, 2), (1, 2)}
    (chosen,) = {info.settings["workers"] for info in infos}
    assert chosen.startswith("2 (auto: 8 cores, decoding and engine on the CPU: ")
    assert f" workers: {chosen}\n" in server.log
    for node in ("cpu_decoder", colours.model.stem):
        assert sum(int(info.settings[f"{node}.instances"]) for info in infos) <= 8


def test_as_the_program_that_the_service_runs() -> None:
    settings = HandlerSettings(engine=ON_CPU, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    done = _run(settings)
    assert done.returncode == 0
    assert from_json(done.stdout, [ProcessLoad]) == process_load(settings)
