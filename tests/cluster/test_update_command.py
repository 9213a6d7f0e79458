"""What an update changes of the running release, and mistakes of its command line."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cluster.release import Release
from cluster.rolling_update import HalfUpdatedError, UnreachableError
from cluster.update_command import COMMANDS, OPTIONS, changed, main
from interfaces.command_line import build_parser
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.logs.log_settings import LogSettings
from service.options.server_settings import ServerSettings
from tests.commands import run_here


def running(**of_handler: Any) -> Release:
    handler = HandlerSettings(**of_handler)
    return Release.of("pipeline", handler, ServerSettings(), LogSettings(), "--port 8095 (file)")


def given(*words: object) -> argparse.Namespace:
    parser = build_parser("cluster", "", OPTIONS, COMMANDS)
    return parser.parse(["update", "--cluster", "127.0.0.1:1", *map(str, words)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "new.onnx"
    path.write_bytes(b"a model")
    return path


def test_what_is_not_given_stays(model: Path) -> None:
    old = running(engine="onnxruntime", mean=(0.0,), std=(255.0,), reduced_decoding=True)
    new = changed(old, given("--model", model))
    assert new.for_handler.model == str(model)
    assert new.for_handler.engine == "onnxruntime"
    assert (new.for_handler.mean, new.for_handler.std) == ((0.0,), (255.0,))
    assert new.for_handler.reduced_decoding
    assert new.settings == old.settings
    assert new.name != old.name
    assert f"--model {model} (cluster update)" in new.options_given


def test_values_of_the_graph_are_added() -> None:
    old = running(overrides={"cnn.max": "4", "cnn.instance_num": "1"})
    new = changed(old, given("--set", "cnn.max=8"))
    assert new.for_handler.overrides == {"cnn.max": "8", "cnn.instance_num": "1"}


def test_labels_come_with_a_model(model: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    new = changed(running(), given("--model", model, "--labels", labels))
    assert new.settings.labels == str(labels)


def test_the_same_settings_are_no_update(model: Path) -> None:
    with pytest.raises(ConfigurationError, match="run with these settings already"):
        changed(running(model=str(model)), given("--model", model))
    with pytest.raises(ConfigurationError, match="nothing is to change"):
        changed(running(), given())


def test_settings_that_cannot_work_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--model: there is no file"):
        changed(running(), given("--model", tmp_path / "none.onnx"))
    with pytest.raises(ConfigurationError, match="--no-lock: the pipeline takes no lock"):
        changed(running(), given("--no-lock"))


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (("update",), "--cluster"),
        (("updat", "--cluster", "a:1"), "did you mean 'update'"),
        (("update", "--cluster", "a:1", "--modle", "x"), "did you mean '--model'"),
        (("update", "--cluster", "a:1", "--canary-share", "2"), "canary-share"),
    ],
)
def test_mistakes_of_the_command_line(words: tuple[str, ...], mistake: str) -> None:
    done = run_here(main, *words)
    assert done.returncode == 2
    assert mistake in done.stderr


def test_how_an_update_ended_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """And one line; the cluster's own part is behind a name that is resolved when it is needed."""
    outcomes = {
        4: HalfUpdatedError("1 ready replicas of release a (old) and 1 of b (new) serve"),
        1: KeyboardInterrupt(),
        3: UnreachableError("no server"),
    }
    for code, error in outcomes.items():

        def run(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("cluster.update_command.resolve_name", lambda _, run=run: run)
        done = run_here(main, "update", "--cluster", "a:1", "--model", model)
        assert done.returncode == code
        assert done.stderr == f"error: {str(error) or 'interrupted; no update was begun'}\n"


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_command_says_what_to_install() -> None:
    done = run_here(main, "status", "--cluster", "127.0.0.1:1")
    assert done.returncode == 2
    assert "pip install 'thriftpipe[cluster]'" in done.stderr
