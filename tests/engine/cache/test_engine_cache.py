from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import onnx
import pytest
import torch

from engine.cache.encrypted_file import ENVIRONMENT_VARIABLE
from engine.cache.engine_cache import load_or_build
from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from tests.engines import CACHING_ENGINES

KEY = {"provider": "p", "model": "m", "precision": "fp32"}


def unexpected() -> NoReturn:
    raise AssertionError("the cache was to be used")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.cache"


@pytest.fixture
def kept(path: Path) -> Path:
    load_or_build(path, KEY, lambda: b"payload")
    return path


class TestFile:
    def test_what_was_built_is_used_again(self, kept: Path) -> None:
        assert load_or_build(kept, KEY, unexpected) == b"payload"

    def test_it_is_private(self, kept: Path) -> None:
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    def test_no_temporary_file_stays(self, kept: Path) -> None:
        assert list(kept.parent.iterdir()) == [kept]

    @pytest.mark.parametrize("name", list(KEY))
    def test_another_key_builds_again_and_says_why(
        self, kept: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        assert load_or_build(kept, {**KEY, name: "other"}, lambda: b"new") == b"new"
        assert f"again: it was made for another {name}" in caplog.text
        assert load_or_build(kept, {**KEY, name: "other"}, unexpected) == b"new"

    def test_a_key_with_more_or_fewer_entries_is_another(self, kept: Path) -> None:
        assert load_or_build(kept, {**KEY, "device": "d"}, lambda: b"more") == b"more"
        assert load_or_build(kept, KEY, lambda: b"fewer") == b"fewer"

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda content: content[:0], "not an engine cache"),
            (lambda content: b"GIF89a" + content, "not an engine cache"),
            (lambda content: content.replace(b'{"key"', b'["key"'), "header is damaged"),
            (lambda content: content.replace(b'"key"', b'"kay"'), "header is damaged"),
            (lambda content: content.replace(b"fp32", b"bf16"), "another precision"),
            (lambda content: content[:-1], "content is damaged"),
            (lambda content: content[:-1] + b"X", "content is damaged"),
        ],
    )
    def test_a_damaged_file_is_built_again(
        self,
        kept: Path,
        damage: Callable[[bytes], bytes],
        reason: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO)
        kept.write_bytes(damage(kept.read_bytes()))
        assert load_or_build(kept, KEY, lambda: b"new") == b"new"
        assert reason in caplog.text
        assert load_or_build(kept, KEY, unexpected) == b"new"

    def test_a_file_that_others_may_write_is_not_trusted(
        self, kept: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        kept.chmod(0o666)
        assert load_or_build(kept, KEY, lambda: b"new") == b"new"
        assert "other users may write to it" in caplog.text
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
    def test_a_file_of_another_user_is_not_trusted(
        self, kept: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        os.chown(kept, 12345, -1)
        assert load_or_build(kept, KEY, lambda: b"new") == b"new"
        assert "it belongs to another user" in caplog.text

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "nowhere" / "model.cache"
        with pytest.raises(EngineError, match=r"cannot write the engine cache .*nowhere"):
            load_or_build(path, KEY, lambda: b"payload")


class TestEncryptedFile:
    @pytest.fixture
    def secret_file(self, tmp_path: Path) -> Path:
        path = tmp_path / "cache.key"
        path.write_text("0f" * 32)
        path.chmod(0o600)
        return path

    @pytest.fixture
    def sealed(self, tmp_path: Path, secret_file: Path) -> Path:
        path = tmp_path / "model.trt.encrypted"
        load_or_build(path, KEY, lambda: b"the weights", secret_file=secret_file)
        return path

    def test_the_right_key_opens_it(self, sealed: Path, secret_file: Path) -> None:
        assert load_or_build(sealed, KEY, unexpected, secret_file=secret_file) == b"the weights"
        assert b"the weights" not in sealed.read_bytes()

    def test_a_key_in_the_environment_opens_it(
        self, sealed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "0f" * 32)
        assert load_or_build(sealed, KEY, unexpected) == b"the weights"

    def test_another_key_is_an_error_and_leaves_the_file_alone(
        self, sealed: Path, secret_file: Path
    ) -> None:
        before = sealed.read_bytes()
        secret_file.write_text("1f" * 32)
        with pytest.raises(EngineError, match="the key does not open it; give the key that"):
            load_or_build(sealed, KEY, unexpected, secret_file=secret_file)
        assert sealed.read_bytes() == before

    def test_no_key_is_an_error(self, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
        with pytest.raises(EngineError, match="needs a key"):
            load_or_build(sealed, KEY, unexpected)

    def test_a_truncated_file_is_built_again(self, sealed: Path, secret_file: Path) -> None:
        sealed.write_bytes(sealed.read_bytes()[:-3])
        assert load_or_build(sealed, KEY, lambda: b"new", secret_file=secret_file) == b"new"
        assert load_or_build(sealed, KEY, unexpected, secret_file=secret_file) == b"new"

    def test_another_model_is_built_again_whatever_the_key(
        self, sealed: Path, secret_file: Path
    ) -> None:
        secret_file.write_text("1f" * 32)
        key = {**KEY, "model": "other"}
        assert load_or_build(sealed, key, lambda: b"new", secret_file=secret_file) == b"new"

    def test_a_header_of_another_model_does_not_pass(self, sealed: Path, secret_file: Path) -> None:
        """Write access to the file is not enough to pass one model's engine for another's."""
        key = {**KEY, "model": "n"}
        sealed.write_bytes(sealed.read_bytes().replace(b'"model": "m"', b'"model": "n"'))
        with pytest.raises(EngineError, match="does not open"):
            load_or_build(sealed, key, unexpected, secret_file=secret_file)


@pytest.mark.parametrize("name", CACHING_ENGINES)
class TestEngines:
    def scores(self, name: str, model: OnnxModel, path: Path | None) -> torch.Tensor:
        options = EngineOptions(max_batch_size=2, cache_path=path)
        images = torch.linspace(0, 255, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).byte()
        engine = load_engine(choose_engine(name), model, options)
        return engine.create_context().run([(images,)])[0].clone()

    def test_a_cached_engine_gives_the_same_scores(
        self, name: str, small_model: OnnxModel, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        expected = self.scores(name, small_model, None)
        assert torch.equal(self.scores(name, small_model, path), expected)
        assert "building cache" in caplog.text
        caplog.clear()
        assert torch.equal(self.scores(name, small_model, path), expected)
        assert f"using cache {path}" in caplog.text

    def test_an_encrypted_engine_gives_the_same_scores(
        self, name: str, small_model: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "0f" * 32)
        expected = self.scores(name, small_model, None)
        for _ in range(2):
            path = tmp_path / "small.encrypted"
            assert torch.equal(self.scores(name, small_model, path), expected)

    def test_another_graph_of_the_same_file_is_another_engine(
        self, name: str, small_model: OnnxModel, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        fused = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
        self.scores(name, small_model, path)
        assert torch.equal(self.scores(name, fused, path), self.scores(name, fused, None))
        assert "it was made for another graph" in caplog.text

    def test_another_model_is_another_engine(
        self,
        name: str,
        small_model: OnnxModel,
        small_proto: Callable[..., onnx.ModelProto],
        path: Path,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO)
        onnx.save(small_proto(last="Sigmoid"), tmp_path / "other.onnx")
        other = OnnxModel.load(tmp_path / "other.onnx")
        self.scores(name, small_model, path)
        assert torch.equal(self.scores(name, other, path), self.scores(name, other, None))
        assert "it was made for another model, graph" in caplog.text


def test_another_precision_or_number_of_threads_is_another_engine(
    small_model: OnnxModel, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for threads in (1, 2):
        options = EngineOptions(cache_path=path, threads_per_context=threads)
        load_engine(choose_engine("openvino"), small_model, options)
    assert "it was made for another INFERENCE_NUM_THREADS" in caplog.text
    caplog.clear()
    load_engine(choose_engine("openvino", "bf16"), small_model, EngineOptions(cache_path=path))
    assert "it was made for another precision" in caplog.text


def test_the_torch_engine_says_that_it_keeps_nothing(
    small_model: OnnxModel, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    load_engine(choose_engine("torch"), small_model, EngineOptions(cache_path=path))
    assert "engine torch keeps nothing in a cache: it is ignored" in caplog.text
    assert not path.exists()
