"""Names that cannot exist here, and what else the package has of torchpipe's names."""

from __future__ import annotations

import importlib
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch

import thriftpipe.torchpipe as torchpipe
from pipeline import Status
from thriftpipe.torchpipe.absent import ABSENT

MODULES = [
    "backends.trt_utils",
    "backends.cuda_utils",
    "backends.py_tensorrt",
    "group_registry",
    "serve",
    "utils.benchmark",
    "utils.model_helper",
]


@pytest.mark.parametrize("name", sorted(ABSENT.keys() - set(MODULES)))
def test_an_absent_name_may_be_imported_and_says_why_it_is_absent_when_used(name: str) -> None:
    top = torchpipe if hasattr(torchpipe, name.partition(".")[0]) else torchpipe.libipipe
    absent = reduce(getattr, name.split("."), top)
    for use in (
        lambda: absent(1, key=2),
        lambda: absent.getInstance,
        lambda: absent.__mro_entries__(()),
    ):
        with pytest.raises(torchpipe.NotHereError, match=f"^torchpipe.{name} is not in") as raised:
            use()
        assert isinstance(raised.value, RuntimeError)
        assert ABSENT[name] in str(raised.value)
    assert "not here" in repr(absent)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("package", ["thriftpipe.torchpipe", "torchpipe"])
def test_importing_an_absent_module_says_why_it_is_absent(package: str, name: str) -> None:
    with pytest.raises(ImportError, match=f"^torchpipe.{name} is not in thriftpipe: "):
        importlib.import_module(f"{package}.{name}")


def test_both_lines_names_are_there() -> None:
    assert torchpipe.Status is Status
    assert torchpipe.Status.Run is Status.RUN
    assert torchpipe.Pipe is torchpipe.pipe
    assert torchpipe._C is torchpipe.libipipe
    assert torchpipe.TASK_BOX_KEY == "_box"
    assert torchpipe.TASK_EVENT_KEY == "event"
    assert torchpipe.__version__ > "0.2.2b1"
    torchpipe.set_fast_dlpack()
    for module in (torchpipe, torchpipe.libipipe, torchpipe.utils, torchpipe.tool):
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_what_is_known_of_this_build() -> None:
    assert torch.cuda.is_available() == torchpipe.WITH_CUDA
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="no NVIDIA GPU"):
            torchpipe.get_sm()


def test_a_model_goes_into_a_file_and_through_a_runtime(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images + 1, images.mean((2, 3))

    models = torchpipe.utils.models
    path = models.onnx_export(Two(), tmp_path / "two.onnx", (1, 3, 4, 4))
    assert torchpipe.infer_shape(path) == [[-1, 3, 4, 4]]
    plus_one, mean = models.onnx_run(path, np.ones((2, 3, 4, 4)))
    assert plus_one.shape == (2, 3, 4, 4)
    assert mean.tolist() == [[1.0] * 3] * 2
    fused = tmp_path / "fused.onnx"
    torchpipe.tool.onnx_tools.torch2onnx(
        torch.nn.Identity(), fused, (3, 4, 4), mean=[1, 2, 3], std=[1, 1, 2]
    )
    (output,) = models.onnx_run(fused, torch.full((1, 3, 4, 4), 5.0))
    assert output[0, :, 0, 0].tolist() == [4.0, 3.0, 1.0]
    with pytest.raises(RuntimeError, match="no ONNX file"):
        torchpipe.infer_shape(tmp_path / "missing.onnx")
    with pytest.raises(ValueError, match="belong together"):
        torchpipe.tool.onnx_tools.torch2onnx(torch.nn.Identity(), fused, mean=[1, 2, 3])
    assert torchpipe.supported_opset() > 10


def test_models_have_names() -> None:
    models = torchpipe.utils.models

    @models.register_model
    def api_small(**keywords: int) -> dict[str, int]:
        return keywords

    models.register_model("api_other")(api_small)
    assert {"api_small", "api_other"} <= set(models.list_models())
    assert models.create_model("api_other", num_classes=3) == {"num_classes": 3}
    with pytest.raises(KeyError, match="registered already"):
        models.register_model(api_small)
    with pytest.raises(KeyError, match="no model 'none'"):
        models.create_model("none")
    with pytest.raises(TypeError, match="a name or a function, got int"):
        models.register_model(3)


def test_a_graph_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = {"first": {"backend": "Identity", "next": "b"}, "b": {"backend": "Identity"}}
    torchpipe.show(graph)
    assert "first" in capsys.readouterr().out
    torchpipe.utils.Visual(graph).save_html(tmp_path / "graph.html")
    assert "first" in (tmp_path / "graph.html").read_text()
    with pytest.raises(RuntimeError, match="unknown backend"):
        torchpipe.Visual({"a": {"backend": "Nonsense"}})


def test_a_toml_file_becomes_text_that_may_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text(
        'instance_num = 2\nbackend = "Identity"\n[first]\nnext = "second"\nor = false\n'
        "[second]\ndevice_id = [0, 1]\n"
    )
    config = torchpipe.parse_toml(str(file))
    assert config["global"] == {"instance_num": "2", "backend": "Identity"}
    assert config["first"] == {"next": "second", "or": "false"}
    assert config["second"] == {"device_id": "0,1"}
    assert torchpipe.parse is torchpipe.parse_toml
