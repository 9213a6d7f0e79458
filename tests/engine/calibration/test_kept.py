"""What is kept of real measurements of a small model."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import pytest

from engine.cache.checksummed_file import write_kept
from engine.calibration import choice, kept, measurement
from engine.calibration.measurement import CannotMeasureError, Open, Verdict
from engine.errors import EngineError
from engine.interface import Engine
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from tests.engines import CPU_ENGINES

Load: TypeAlias = Callable[[int], Engine]

ASKED = Open((1, 2, 4, 8), contexts=2)
KEY = {"model": "small"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and short measurements, none of them late or disturbed."""
    monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "SHORTEST_WINDOW_S", 0.001)
    monkeypatch.setattr(measurement, "_LEAST_S", 30.0)
    monkeypatch.setattr(measurement, "MOST_ROUNDS", 8)
    monkeypatch.setattr(kept, "_LEAST_CPU_SHARE", 0.0)
    return tmp_path / "cache"


class Loader:
    """Loads a model, and counts how often."""

    def __init__(self, model: OnnxModel, engine: str = "onnxruntime") -> None:
        self.count = 0
        self._model = model
        self._engine = engine

    def __call__(self, rows: int) -> Engine:
        self.count += 1
        options = EngineOptions(max_batch_size=rows, num_contexts=2)
        return load_engine(choose_engine(self._engine, "fp32"), self._model, options)


@pytest.fixture
def load(small_model: OnnxModel) -> Loader:
    return Loader(small_model)


def kept_or_measured(
    asked: Open,
    key: dict[str, str],
    load: Load,
    start_folder: Path | None = None,
) -> Verdict:
    """What is kept, or measured with an engine of `load`."""
    return kept.kept_or_measured(
        asked, key, start_folder, lambda: measurement.measure(asked, load, lambda: None)
    )


def kept_file(cache: Path) -> Path:
    (path,) = cache.glob("calibration-*.json")
    return path


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_every_engine_is_measured_once(cache: Path, small_model: OnnxModel, engine: str) -> None:
    load = Loader(small_model, engine)
    asked = Open((1, 2), contexts=2)
    found = kept_or_measured(asked, KEY, load)
    assert found.batch in asked.sizes
    assert found.reason.startswith("single images: " if found.batch == 1 else "batches of 2: ")
    assert re.search(r"\d\.\d\d x.*, measured here on \d{4}-\d\d-\d\d$", found.reason)
    assert kept_or_measured(asked, KEY, load) == found
    assert load.count == 1
    assert json.loads(kept_file(cache).read_text())["key"]["model"] == "small"


def test_another_key_or_question_is_measured_by_itself(cache: Path, load: Loader) -> None:
    kept_or_measured(ASKED, KEY, load)
    kept_or_measured(ASKED, {"model": "another"}, load)
    kept_or_measured(Open((1, 2), contexts=2), KEY, load)
    assert load.count == len(list(cache.glob("calibration-*.json"))) == 3


def test_a_damaged_file_is_measured_again(
    cache: Path,
    load: Loader,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept_or_measured(ASKED, KEY, load)
    path = kept_file(cache)
    path.write_bytes(damage(path.read_bytes()))
    again = kept_or_measured(ASKED, KEY, load)
    assert load.count == 2
    assert f"measuring batches again: {path} cannot be used" in caplog.text
    assert again.batch in ASKED.sizes
    assert kept_or_measured(ASKED, KEY, load) == again
    assert load.count == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no JSON", "it is no measurement"),
        (b"[]", "it is no measurement"),
        (b'{"verdict": null, "why_not": "no key", "count": 1}', "it is no measurement"),
        (b'{"key": {"model": "another"}}', "it was measured for something else"),
        ({"count": "no number"}, "it is no measurement"),
        ({"count": None}, "it is no measurement"),
        ({"count": float("inf")}, "it is no measurement"),
        ({"verdict": {"batch": 1, "reason": "", "cpu_share": 10**400}}, "it is no measurement"),
        (
            {"verdict": {"batch": 1, "reason": "", "cpu_share": float("nan")}},
            "it is no measurement",
        ),
        ({"verdict": {"batch": 2}}, "it is no measurement"),
        ({"verdict": {"batch": 2, "reason": "", "cpu_share": None}}, "it is no measurement"),
    ],
)
def test_a_file_with_another_content_is_measured_again(
    content: bytes | dict[str, object],
    reason: str,
    cache: Path,
    load: Loader,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also one that differs in a value alone."""
    kept_or_measured(ASKED, KEY, load)
    if isinstance(content, dict):
        content = json.dumps({**json.loads(kept_file(cache).read_bytes()), **content}).encode()
    write_kept(kept_file(cache), content)
    assert kept_or_measured(ASKED, KEY, load).batch in ASKED.sizes
    assert load.count == 2
    assert reason in caplog.text


def test_only_what_was_asked_for_is_taken_from_a_file(
    cache: Path, load: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    kept_or_measured(ASKED, KEY, load)
    path = kept_file(cache)
    written = json.loads(path.read_bytes())
    written["verdict"]["batch"] = 3
    write_kept(path, json.dumps(written).encode())
    kept_or_measured(ASKED, KEY, load)
    assert load.count == 2
    assert "other batches than were to be measured" in caplog.text


@pytest.mark.usefixtures("cache")
def test_three_starts_try_in_vain(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("_LIMIT_S", "_LEAST_S"):
        monkeypatch.setattr(measurement, limit, 0.0)
    for attempts in (1, 2, 3):
        with pytest.raises(CannotMeasureError, match=r"no time for 6 rounds.*, on \d{4}-"):
            kept_or_measured(ASKED, KEY, load)
        assert load.count == attempts
    with pytest.raises(CannotMeasureError, match="the last of 3 attempts"):
        kept_or_measured(ASKED, KEY, load)
    assert load.count == 3


class Shares:
    """Measurements with the given shares of the CPU's time, of batches of 1, 2, 4 and 8."""

    def __init__(self, *cpu_shares: float) -> None:
        sizes = (1, 2, 4, 8)
        self._left = [Verdict(sizes[i], f"no. {i}", it) for i, it in enumerate(cpu_shares)]

    def __call__(self) -> Verdict:
        return self._left.pop(0)


def test_what_was_disturbed_is_measured_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one start is not; meanwhile the one that was disturbed least holds."""
    monkeypatch.setattr(kept, "_LEAST_CPU_SHARE", 0.9)
    measured = Shares(0.3, 0.2, 0.95)
    told = " with only 30% of its cores' time, as other work disturbed it: the next start measures"
    for _ in range(2):
        found = kept.kept_or_measured(ASKED, KEY, None, measured)
        assert found.batch == 1
        assert f"{told} again" in found.reason
    found = kept.kept_or_measured(ASKED, KEY, None, measured)
    assert found.batch == 4
    assert re.fullmatch(r"no. 2, measured here on [\d-]+", found.reason)
    # No measurement is left.
    assert kept.kept_or_measured(ASKED, KEY, None, measured) == found
    assert json.loads(kept_file(cache).read_text())["count"] == 3


def test_three_disturbed_measurements_are_enough(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where other work is always there, no later start takes longer."""
    monkeypatch.setattr(kept, "_LEAST_CPU_SHARE", 0.9)
    measured = Shares(0.3, 0.5, 0.4)
    for _ in range(4):
        found = kept.kept_or_measured(ASKED, KEY, None, measured)
    assert found.batch == 2
    path = kept_file(cache)
    told = f"at 3 starts; remove {path.name} from the cache folder to measure again"
    assert found.reason.endswith(told)
    path.unlink()
    assert kept.kept_or_measured(ASKED, KEY, None, Shares(1.0)).batch == 1


@pytest.mark.usefixtures("cache")
def test_a_failed_measurement_leaves_a_disturbed_one(
    load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_LEAST_CPU_SHARE", 0.9)
    kept.kept_or_measured(ASKED, KEY, None, Shares(0.3))
    for limit in ("_LIMIT_S", "_LEAST_S"):
        monkeypatch.setattr(measurement, limit, 0.0)
    found = kept_or_measured(ASKED, KEY, load)
    assert (load.count, found.batch, found.cpu_share) == (1, 1, 0.3)


@pytest.mark.usefixtures("cache")
def test_the_processes_of_a_start_go_on_with_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replaced worker, too, whatever other servers have measured since."""
    monkeypatch.setattr(kept, "_LEAST_CPU_SHARE", 0.9)
    one, another = tmp_path / "one", tmp_path / "another"
    one.mkdir()
    another.mkdir()
    first = kept.kept_or_measured(ASKED, KEY, one, Shares(0.3))
    second = kept.kept_or_measured(ASKED, KEY, another, Shares(0.2, 0.4))
    assert (first.batch, second.batch, second.cpu_share) == (1, 1, 0.3)
    quiet = kept.kept_or_measured(ASKED, KEY, None, lambda: Verdict(2, "quiet", 1.0))
    assert (quiet.batch, quiet.cpu_share) == (2, 1.0)
    for folder in (one, another, one):
        assert kept.kept_or_measured(ASKED, KEY, folder, Shares()).cpu_share == 0.3


@pytest.mark.usefixtures("cache")
def test_what_failed_is_not_tried_by_others_of_the_same_start(
    tmp_path: Path, load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Verdict:
        failed.append(True)
        raise EngineError("no such thing")

    failed: list[bool] = []
    for limit in ("_LIMIT_S", "_LEAST_S"):
        monkeypatch.setattr(measurement, limit, 0.0)
    for _ in range(2):
        with pytest.raises(CannotMeasureError, match="no time for 6 rounds"):
            kept_or_measured(ASKED, KEY, load, start_folder=tmp_path)
        with pytest.raises(CannotMeasureError, match=r"no such thing$"):
            kept.kept_or_measured(ASKED, {"model": "another"}, tmp_path, fail)
    assert (load.count, len(failed)) == (1, 1)


@pytest.mark.usefixtures("cache")
def test_a_start_that_waited_for_another_server_keeps_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_LEAST_CPU_SHARE", 0.9)
    kept.kept_or_measured(ASKED, KEY, None, Shares(0.3))
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_waited_for_lock", lambda _: True)
        assert kept.kept_or_measured(ASKED, KEY, tmp_path, Shares()).cpu_share == 0.3
    assert kept.kept_or_measured(ASKED, KEY, tmp_path, Shares()).cpu_share == 0.3


def test_what_was_disturbed_holds_where_nothing_more_can_be_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image that was warmed on a busy host, and is read-only now."""
    monkeypatch.setattr(kept, "_LEAST_CPU_SHARE", 0.9)
    kept.kept_or_measured(ASKED, KEY, None, Shares(0.3))
    (lock,) = cache.glob("*.lock")
    lock.unlink()
    lock.mkdir()
    found = kept.kept_or_measured(ASKED, KEY, None, Shares())
    assert (found.batch, found.cpu_share) == (1, 0.3)
    assert "as other work disturbed it, and not measured again: " in found.reason
    assert "cannot be written" in found.reason


@pytest.mark.usefixtures("cache")
def test_of_processes_that_start_together_one_measures(
    small_model: OnnxModel, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers with different batches would each want an engine process of their own."""
    load, others = Loader(small_model), Loader(small_model)
    with ThreadPoolExecutor(2) as threads:

        def load_while_others_ask(rows: int) -> Engine:
            asking.extend(threads.submit(kept_or_measured, ASKED, KEY, others) for _ in range(2))
            return load(rows)

        asking: list[Future[Verdict]] = []
        found = kept_or_measured(ASKED, KEY, load_while_others_ask)
        assert [it.result() for it in asking] == [found, found]
    assert (load.count, others.count) == (1, 0)
    assert not [it for it in caplog.records if it.levelno >= logging.WARNING]


@pytest.mark.usefixtures("cache")
def test_who_waited_in_vain_does_not_try_again(
    small_model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker of a server would make the start longer."""
    for limit in ("_LIMIT_S", "_LEAST_S"):
        monkeypatch.setattr(measurement, limit, 0.0)
    load, other = Loader(small_model), Loader(small_model)
    waits = threading.Event()

    def sleep(_: float) -> None:
        waits.set()
        time.sleep(0.001)

    monkeypatch.setattr(kept, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    with ThreadPoolExecutor(1) as thread:

        def load_while_another_waits(rows: int) -> Engine:
            asking.append(thread.submit(kept_or_measured, ASKED, KEY, other))
            assert waits.wait(30)
            return load(rows)

        asking: list[Future[Verdict]] = []
        with pytest.raises(CannotMeasureError, match="no time for 6 rounds"):
            kept_or_measured(ASKED, KEY, load_while_another_waits)
        with pytest.raises(CannotMeasureError, match="no time for 6 rounds"):
            asking[0].result()
    assert (load.count, other.count) == (1, 0)


@pytest.mark.usefixtures("cache")
def test_who_waits_for_a_failing_model_does_not_load_it_again(small_model: OnnxModel) -> None:
    other = Loader(small_model)
    with ThreadPoolExecutor(1) as thread:
        waiting: list[Future[Verdict]] = []

        def load(*_: int) -> Engine:
            waiting.append(thread.submit(kept_or_measured, ASKED, KEY, other))
            assert waits.wait(30)
            raise EngineError("no such thing")

        waits = threading.Event()
        with pytest.MonkeyPatch.context() as patch:
            slow = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: waits.set())
            patch.setattr(kept, "time", slow)
            with pytest.raises(CannotMeasureError, match="no such thing"):
                kept_or_measured(ASKED, KEY, load)
            with pytest.raises(CannotMeasureError, match="has kept nothing"):
                waiting[0].result()
    assert other.count == 0


def test_who_waits_too_long_goes_on_without(
    cache: Path, load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have been stopped, or hang in its engine."""
    monkeypatch.setattr(kept, "_LONGEST_WAIT_S", 0.01)
    found = kept_or_measured(ASKED, KEY, load)
    (lock,) = cache.glob("*.lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        # What is kept and reliable needs no lock.
        assert kept_or_measured(ASKED, KEY, load) == found
        kept_file(cache).unlink()
        with pytest.raises(CannotMeasureError, match="another process has been measuring"):
            kept_or_measured(ASKED, KEY, load)
    assert load.count == 1


def test_the_answer_of_a_start_needs_neither_cache_nor_lock(
    cache: Path, tmp_path: Path, load: Loader
) -> None:
    """Also that nothing could be measured, when the cache can be written again."""
    cache.write_text("a file")
    for _ in range(2):
        with pytest.raises(CannotMeasureError, match="cannot be written"):
            kept_or_measured(ASKED, KEY, load, start_folder=tmp_path)
        cache.unlink(missing_ok=True)
    assert load.count == 0


def test_named_pipes_hold_nobody_up(cache: Path, tmp_path: Path, load: Loader) -> None:
    kept_or_measured(ASKED, KEY, load, start_folder=tmp_path)
    (lock,) = cache.glob("*.lock")
    for path in (lock, kept_file(cache), tmp_path / kept_file(cache).name):
        path.unlink()
        os.mkfifo(path)
    assert kept_or_measured(ASKED, KEY, load, start_folder=tmp_path).batch in ASKED.sizes
    assert load.count == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may enter every folder")
def test_a_folder_that_may_not_be_entered_costs_no_time(cache: Path, load: Loader) -> None:
    cache.mkdir(0o000)
    with pytest.raises(CannotMeasureError, match=r"cannot be written .*THRIFTPIPE_CACHE_DIR"):
        kept_or_measured(ASKED, KEY, load)
    assert load.count == 0


def test_a_folder_that_cannot_be_written_costs_no_time(cache: Path, load: Loader) -> None:
    cache.write_text("a file")
    with pytest.raises(CannotMeasureError, match=r"cannot be written .*THRIFTPIPE_CACHE_DIR"):
        kept_or_measured(ASKED, KEY, load)
    assert load.count == 0


@pytest.mark.parametrize(
    ("raised", "told"),
    [(EngineError("no such thing"), CannotMeasureError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_what_ends_a_measurement_leaves_nothing_behind(
    raised: BaseException, told: type[BaseException], cache: Path
) -> None:
    def load(*_: int) -> Engine:
        raise raised

    with pytest.raises(told, match=re.escape(str(raised)) + "$"):
        kept_or_measured(ASKED, KEY, load)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
