"""The benchmark of the runtime: its windows, its commands on our side, and its report."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import pytest

from pipeline import NodeError
from pipeline.measure import batching, cli, integrity, own_side, report, run_file, summary
from pipeline.measure.side_process import COPY_BACKEND, Side, WindowError
from pipeline.measure.sides import ANCHOR, OURS, MeasureError, start_anchor
from pipeline.measure.verdict import verdicts
from pipeline.measure.windows import Part, measure

# What a batch takes where the order of events counts: other tests run on the same cores.
_LONG_S = 0.3


@pytest.fixture
def own() -> Side:
    """Our side in this process."""
    open_pipe, _ = own_side.start()
    return Side(open_pipe)


def _part(name: str, **changed: Any) -> dict[str, Any]:
    parts = batching.batching_parts(duration_s=0.05, trials=1, wait_s=0.05)
    return {**next(part for part in parts if part.name == name).request_for(OURS), **changed}


def test_closed_loop_tells_every_latency_and_every_batch(own: Side) -> None:
    result = own.run(_part("clients-4"))
    assert result["items"] == len(result["latencies_ms"]) >= 4
    assert min(result["latencies_ms"]) >= 1000 * batching.MODEL_S
    batches = {int(size): count for size, count in result["batch_sizes"].items()}
    assert sum(size * count for size, count in batches.items()) == result["items"]
    assert max(batches) <= batching.LARGEST_BATCH
    assert result["cpu_s"] > 0
    assert result["wall_s"] <= result["elapsed_s"]


@pytest.mark.parametrize(("busy", "before"), [(0, [1, 1]), (1, [1]), (2, [1, 1])])
def test_a_late_request_is_alone(own: Side, busy: int, before: list[int]) -> None:
    result = own.run(_part(f"late-{busy}-busy", trials=2, model_s=_LONG_S))
    assert len(result["latencies_ms"]) == 2
    assert result["batches_before"] == [before, before]


def test_a_request_that_is_not_alone_is_no_late_one(own: Side) -> None:
    # Three of the four items wait for an instance, and the late one comes to them.
    with pytest.raises(WindowError, match="not alone"):
        own.run(_part("late-2-busy", second_items=4, model_s=_LONG_S))


@pytest.mark.parametrize(
    "name", ["wait-1-behind-instance", "wait-2-behind-instance", "wait-1-below-min"]
)
def test_items_wait_while_the_cpu_time_is_read(own: Side, name: str) -> None:
    result = own.run(_part(name))
    assert result["batches_begun"] == 0
    assert result["refused"] is None
    assert result["wall_s"] >= 0.05


def test_what_the_pipe_refuses_is_told() -> None:
    def refuse(item: dict[str, Any]) -> None:
        raise ValueError(f"too few: {len(item)}\nmore")

    result = Side(lambda _: refuse).run(_part("wait-1-below-min"))
    assert result["refused"] == "ValueError: too few: 1"


def test_a_wrong_result_ends_the_window() -> None:
    def swap(item: dict[str, Any]) -> None:
        item["result"] = "another one's"

    with pytest.raises(WindowError, match="came back as"):
        Side(lambda _: swap).run(_part("clients-1"))


def test_sides_take_turns_and_the_order_turns_round() -> None:
    class Noted:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, request: Any) -> dict[str, Any]:
            order.append((self.name, request["length"]))
            return {"seen": request["own"]}

    order: list[tuple[str, str]] = []
    part = Part("p", {"length": "full", "own": 0}, {"length": "brief"}, {"b": {"own": 1}})
    windows = measure([part], [Noted("a"), Noted("b")], 2, lambda _: None)
    assert order == [
        *(("a", "brief"), ("b", "brief")),
        *(("a", "full"), ("b", "full")),
        *(("b", "full"), ("a", "full")),
    ]
    assert windows[1] == {"part": "p", "side": "b", "repeat": 0, "seen": 1}


def test_overhead_without_torchpipe_measures_our_side_and_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["overhead", "--repeats", "1", "--duration_s", "0.05", "--output_dir", str(tmp_path)]
    assert cli.main([*words, "--anchor_python", str(tmp_path / "no-python")]) == 0
    missing = "torchpipe: cannot start 'no-python': No such file or directory"
    assert f"measuring thriftpipe only: {missing}\n" in capsys.readouterr().err
    run = run_file.read(tmp_path)
    assert run["anchor_missing"] == missing
    assert [(window["part"], window["side"]) for window in run["windows"]] == [
        ("chain-max-1", OURS),
        ("chain-max-4", OURS),
    ]
    assert run["parts"][0]["request"]["document"]["chain_1_0"]["backend"] == COPY_BACKEND
    text = (tmp_path / report.REPORT_FILE).read_text(encoding="utf-8")
    assert f"**Without torchpipe**: {missing}" in text
    assert "**Only 1 repeat(s)**" in text
    assert str(tmp_path) not in (tmp_path / run_file.RUN_FILE).read_text(encoding="utf-8")


def test_an_interpreter_without_torchpipe_is_one_line(tmp_path: Path) -> None:
    # Isolated and without site packages, this interpreter has nothing but its own library.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    with pytest.raises(MeasureError, match=r"^torchpipe: No module named 'torchpipe'$"):
        start_anchor(str(bare))


def test_a_side_that_dies_is_one_line(tmp_path: Path) -> None:
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho the last words >&2\nexit 3\n", encoding="utf-8")
    dying.chmod(0o755)
    with pytest.raises(MeasureError, match="exit code 3: the last words"):
        start_anchor(str(dying))


def test_integrity_finds_nothing_wrong_with_the_runtime(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["integrity", "--items", "1500", "--sample_s", "0.02"]
    assert cli.main([*words, "--output_dir", str(tmp_path)]) == 0
    run = run_file.read(tmp_path)
    assert run["items"] == 1500
    assert run["findings"] == {}
    assert run["failed_on_purpose"] == sum(
        integrity.expected(number)[0] is None for number in range(1500)
    )
    assert run["samples"][-1]["items"] == 1500
    assert "none of 1500" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "integrity.png")) is not None


def _outcome(number: int) -> dict[str, Any]:
    """What must become of an item."""
    value, failing = integrity.expected(number)
    if value is None:
        return {"error": NodeError(min(failing), integrity.ItemFailedError(number))}
    return {"result": (number, value)}


_GOOD = next(n for n in range(1000) if integrity.expected(n)[0] is not None)
_BAD = next(n for n in range(1000) if integrity.expected(n)[0] is None)


@pytest.mark.parametrize(
    ("number", "item", "kind"),
    [
        (_GOOD, {}, "lost"),
        (_GOOD, {**_outcome(_GOOD), **_outcome(_BAD)}, "result and error"),
        (_GOOD, _outcome(_BAD), "failed without a reason"),
        (_GOOD, {"result": (_GOOD, 1)}, "result of another item"),
        (_BAD, {"result": (_BAD, 1)}, "result in spite of an error"),
        (
            _BAD,
            {"error": NodeError(_outcome(_BAD)["error"].node, integrity.ItemFailedError(_GOOD))},
            "error of another item",
        ),
        (_BAD, {"error": RuntimeError("no node's")}, "failed without a reason"),
    ],
)
def test_integrity_would_find(number: int, item: dict[str, Any], kind: str) -> None:
    findings = integrity.Findings()
    integrity.check_outcome(number, item, findings)
    assert findings.counts == Counter({kind: 1})
    assert findings.examples[0].startswith(f"item {number}: {kind}")


def test_integrity_accepts_what_must_become_of_an_item() -> None:
    findings = integrity.Findings()
    for number in (_GOOD, _BAD):
        integrity.check_outcome(number, _outcome(number), findings)
    assert not findings.counts


def _hand_made(kind: str, parts: list[dict[str, Any]], windows: list[dict[str, Any]]) -> Any:
    return {
        "kind": kind,
        "started": "2026-01-01T00:00:00Z",
        "command": f"python -m pipeline.measure {kind}",
        "machine": {
            "cpu_model": "a processor",
            "cpu_cores_usable": 2,
            "memory_bytes": 2**34,
            "kernel": "Linux",
        },
        "source": {"commit": "0" * 40, "dirty": False},
        "settings": {"repeats": 5, "wait_s": 0.5},
        "versions": {OURS: {OURS: "1"}, ANCHOR: {ANCHOR: "2"}},
        "anchor_missing": None,
        "parts": parts,
        "windows": windows,
    }


def _batching_run() -> Any:
    """Five repeats in which torchpipe is as it was seen once: 60 ms, 211 ms, and a busy core."""
    slow = {"clients-2": 60.7, "late-1-busy": 211.0, "late-2-busy": 210.0}
    parts = batching.batching_parts(1.0, 1, 0.5)
    windows = []
    for repeat in range(5):
        for part in parts:
            for side in (OURS, ANCHOR):
                after_s = 0.1 * (len(windows) + 1)
                latency_ms = slow.get(part.name, 11.0) if side == ANCHOR else 10.5
                refused = side == ANCHOR and part.name == "wait-1-below-min"
                windows.append(
                    {
                        "part": part.name,
                        "side": side,
                        "repeat": repeat,
                        "items": 4,
                        "wall_s": 0.5,
                        "cpu_s": 0.4 if side == ANCHOR and "wait-2" in part.name else 0.001,
                        "batch_sizes": {"4": 9, "3": 1},
                        "latencies_ms": [latency_ms] * 4,
                        "batches_before": [[1]],
                        "batches_begun": 0,
                        "refused": "RuntimeError: too few" if refused else None,
                        "elapsed_s": 0.1,
                        "process_cpu_s": [after_s - 0.1, after_s],
                    }
                )
    made = [{"name": part.name, "request": dict(part.request)} for part in parts]
    return _hand_made("batching", made, windows)


def test_the_report_of_batching_says_what_is_met(tmp_path: Path) -> None:
    run_file.write(tmp_path, _batching_run())
    before = (tmp_path / run_file.RUN_FILE).read_bytes()
    terminal = report.build(tmp_path)
    assert "RuntimeError: too few" in terminal
    text = (tmp_path / report.REPORT_FILE).read_text(encoding="utf-8")
    assert text.count("| yes |") == 9
    assert "**no**" not in text
    assert "0.95 x torchpipe's [0.95, 0.95]" in text
    assert "Without torchpipe" not in text
    assert "![When batches leave](batching.png)" in text
    picture = (tmp_path / "batching.png").read_bytes()
    report.build(tmp_path)
    assert (tmp_path / "batching.png").read_bytes() == picture
    assert (tmp_path / run_file.RUN_FILE).read_bytes() == before


def test_what_is_not_met_is_told() -> None:
    run = _batching_run()
    for window in run["windows"]:
        window["side"] = {OURS: ANCHOR, ANCHOR: OURS}[window["side"]]
    answers = {line.asked.split(":")[0]: line.met for line in verdicts(run)}
    assert not answers["2 clients"]
    assert not answers["a lone late request, 1 of 2 instances at work"]
    assert not answers["wait-2-behind-instance"]
    assert not answers["wait-1-below-min"]
    assert answers["wait-1-behind-instance"]


def test_overhead_is_compared_with_torchpipe(tmp_path: Path) -> None:
    part = {"name": "chain-max-1", "request": {"clients": 10, "document": {"a": {}, "b": {}}}}
    window = {"part": "chain-max-1", "items": 1000, "elapsed_s": 0.1, "process_cpu_s": [0, 0]}
    windows = [
        {**window, "side": side, "wall_s": wall_s, "cpu_s": 0.05}
        for side, wall_s in ((OURS, 0.04), (ANCHOR, 0.02), (ANCHOR, 0.02), (OURS, 0.05))
    ]
    run = _hand_made("overhead", [part], windows)
    cpu, wall = verdicts(run)
    assert (cpu.found, cpu.met) == ("50.0 us", True)
    assert (wall.found, wall.met) == ("2.25 x torchpipe's [2.00, 2.50]", False)
    run_file.write(tmp_path, run)
    report.build(tmp_path)
    assert cv2.imread(str(tmp_path / "overhead.png")) is not None


def test_memory_that_grows_is_found() -> None:
    samples = [{"items": 100 * n, "rss_bytes": 10_000 + 2000 * n} for n in range(20)]
    assert summary.bytes_an_item(samples) == pytest.approx(20)
    assert summary.bytes_an_item(samples[:2]) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a measured folder"),
        ("{", "is damaged: JSONDecodeError"),
        (json.dumps({"schema_version": 0}), "has schema version 0"),
        (json.dumps({"schema_version": 1}), "is damaged: KeyError"),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_line(
    content: str | None, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / run_file.RUN_FILE).write_text(content, encoding="utf-8")
    assert cli.main(["report", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
