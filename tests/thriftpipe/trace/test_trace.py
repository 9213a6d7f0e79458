"""`trace`: timelines of real runs, whose events are consistent."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.commands import run_here
from tests.robustness.colour_model import LABELS, encoded, write_colour_model
from thriftpipe.trace.__main__ import main

Event: TypeAlias = "dict[str, Any]"

IMAGES, CLIENTS = 60, 6
REASONS = {"full", "idle", "timeout"}
CHAIN = """
batching_timeout = 2

[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 32
resize_w = 32
instance_num = 2
next = "model"

[model]
backend = "TensorrtTensor"
model = "{model}"
mean = "0"
std = "255"
min = 2
max = 3
"""
FORK = """
[decoder]
backend = "DecodeMat"
next = "small,large"

[small]
backend = "ResizeMat"
resize_h = 8
resize_w = 8

[large]
backend = "ResizeMat"
resize_h = 64
resize_w = 64
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain with a tiny model, a fork, and photos."""
    folder = tmp_path_factory.mktemp("trace")
    (folder / "chain.toml").write_text(CHAIN.format(model=write_colour_model(folder).model))
    (folder / "fork.toml").write_text(FORK)
    (folder / "photos").mkdir()
    for label in LABELS:
        (folder / "photos" / f"{label}.jpg").write_bytes(encoded(label, 90, 60))
    return folder


def trace(folder: Path, file: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = [str(folder / file), str(folder / "photos"), "--images", str(IMAGES)]
    return run_here(main, *words, "--clients", str(CLIENTS), *more)


@pytest.fixture(scope="module")
def chain(folder: Path) -> subprocess.CompletedProcess[str]:
    """One run that leaves chain.html and chain.json."""
    page, events = folder / "chain.html", folder / "chain.json"
    return trace(folder, "chain.toml", "-o", str(page), "--output", str(events))


@pytest.fixture(scope="module")
def fork(folder: Path) -> subprocess.CompletedProcess[str]:
    return trace(folder, "fork.toml", "-o", str(folder / "fork.json"))


def events_of(path: Path) -> list[Event]:
    events: list[Event] = json.loads(path.read_text("utf-8"))["traceEvents"]
    return events


def bars(events: list[Event], category: str) -> list[Event]:
    return [event for event in events if event.get("cat") == category]


def names(events: list[Event], what: str) -> dict[tuple[int, int], str]:
    return {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"] == what
    }


def by_thread(events: list[Event]) -> Iterator[list[Event]]:
    threads: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in events:
        threads[event["pid"], event["tid"]].append(event)
    for those in threads.values():
        yield sorted(those, key=lambda event: (event["ts"], event["dur"]))


def test_a_sentence_and_two_files_come_out(
    chain: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert chain.returncode == 0, chain.stderr
    sentence, *files = chain.stdout.splitlines()
    assert re.match(
        r"60 images from 6 clients: the locked baseline took \d+ ms \(\d+ a second\), the pipeline "
        r"\d+ ms \(\d+ a second\)\. That is x \d+\.\d\d ",
        sentence,
    )
    assert files[0].startswith(str(folder / "chain.html"))
    assert "perfetto" in files[1]


def test_events_are_what_viewers_read(
    chain: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert chain.returncode == 0, chain.stderr
    events = events_of(folder / "chain.json")
    assert {event["ph"] for event in events} == {"M", "X"}
    threads = names(events, "thread_name")
    for event in events:
        assert isinstance(event["name"], str)
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0
            assert (event["pid"], event["tid"]) in threads
    assert sorted(names(events, "process_name").values()) == ["baseline", "pipeline"]
    instances = ["engine", "decoder-0-0", "decoder-0-1", "model-0-0"]
    clients = [f"client {number}" for number in range(CLIENTS)]
    assert Counter(threads.values()) == {**dict.fromkeys(instances, 1), **dict.fromkeys(clients, 2)}


def check_batches(events: list[Event], nodes: set[str]) -> None:
    """No instance does two things at once, and each node has each request in one batch."""
    batches = bars(events, "batch")
    for those in by_thread(batches):
        for one, following in pairwise(those):
            assert one["ts"] + one["dur"] <= following["ts"] + 1e-3
    of_node: dict[str, list[int]] = defaultdict(list)
    for batch in batches:
        node, rows = batch["name"].split()
        args = batch["args"]
        assert args["rows"] == int(rows) == len(args["requests"])
        assert args["reason"] in ({"lock"} if node == "engine" else REASONS)
        of_node[node] += args["requests"]
    assert of_node.keys() == nodes
    for requests in of_node.values():
        assert sorted(requests) == list(range(IMAGES))


def test_batches_of_the_chain_are_consistent(
    chain: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert chain.returncode == 0, chain.stderr
    events = events_of(folder / "chain.json")
    check_batches(events, {"engine", "decoder", "model"})
    sizes = [it["args"]["rows"] for it in bars(events, "batch") if it["name"].startswith("model")]
    assert max(sizes) > 1
    assert max(sizes) <= 3


def test_a_request_waits_and_works_within_its_own_time(
    chain: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert chain.returncode == 0, chain.stderr
    events = events_of(folder / "chain.json")
    requests = {(it["pid"], it["args"]["request"]): it for it in bars(events, "request")}
    assert len(requests) == 2 * IMAGES
    parts = [*bars(events, "wait"), *bars(events, "work")]
    for part in parts:
        whole = requests[part["pid"], part["args"]["request"]]
        assert (part["pid"], part["tid"]) == (whole["pid"], whole["tid"])
        assert whole["ts"] - 1e-3 <= part["ts"]
        assert part["ts"] + part["dur"] <= whole["ts"] + whole["dur"] + 1e-3
    for those in by_thread(parts):
        for one, following in pairwise(those):
            assert one["ts"] + one["dur"] <= following["ts"] + 1e-3
    # decode, preprocess, lock and engine; and for both nodes a wait and the work
    passed = Counter((it["pid"], it["name"]) for it in parts)
    assert set(passed.values()) == {IMAGES}
    assert sorted(name for _, name in passed) == [
        *("decode", "decoder", "engine", "model", "preprocess"),
        *("wait for decoder", "wait for engine", "wait for model"),
    ]


def test_where_a_graph_forks_a_client_has_two_rows(
    fork: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert fork.returncode == 0, fork.stderr
    assert "no baseline above: the service classifies with one model" in fork.stderr
    events = events_of(folder / "fork.json")
    assert list(names(events, "process_name").values()) == ["pipeline"]
    check_batches(events, {"decoder", "small", "large"})
    for those in by_thread([*bars(events, "wait"), *bars(events, "work")]):
        for one, following in pairwise(those):
            assert one["ts"] + one["dur"] <= following["ts"] + 1e-3


def test_an_image_that_fails_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "photos", tmp_path / "photos")
    # It is decoded, and smaller than what is to be cut out of it; its name is not UTF-8.
    small = os.fsdecode(bytes(tmp_path) + b"/photos/small\xff.jpg")
    Path(small).write_bytes(encoded(LABELS[0], 10, 10))
    chain = (folder / "chain.toml").read_text()
    part = "S[DecodeMat,CropMat(x1=0,y1=0,x2=50,y2=50)"
    (tmp_path / "chain.toml").write_text(chain.replace("S[DecodeMat", part))
    run = trace(tmp_path, "chain.toml", "-o", str(tmp_path / "t.json"), "--no-baseline")
    assert run.returncode == 1
    assert "15 requests failed, such as: " in run.stderr
    failures = [it["args"]["failure"] for it in bars(events_of(tmp_path / "t.json"), "request")]
    assert sum(bool(failure) for failure in failures) == 15
    # The baseline cuts nothing out.
    run = trace(tmp_path, "chain.toml", "-o", str(tmp_path / "t.html"))
    assert run.returncode == 1
    assert "0 and 15 of them failed, so the two cannot be compared." in run.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.toml", "photos"], "required: --output/-o"),
        (["a.toml", "photos", "-o", "t.htm"], "must end in .html, a page to read, or .json"),
        (["a.toml", "photos", "-o", "no/t.html"], "there is no folder no"),
        (["a.toml", "photos", "-o", "t.html", "--images", "0"], "must be 1 to 5000, got 0"),
        (["a.toml", "photos", "-o", "t.html", "--client", "2"], "did you mean '--clients'?"),
        (["no.toml", "{photos}", "-o", "t.html"], "cannot read the configuration"),
        (["{folder}/chain.toml", "no", "-o", "t.html"], "no"),
        (
            ["{folder}/chain.toml", "{photos}", "-o", "t.html", "--max-image-pixels", "5399"],
            "images cannot be used",
        ),
        (["{folder}/chain.toml", "{photos}", "-o", "t.html", "--node", "modle"], "'model'?"),
    ],
)
def test_a_wrong_command_line_is_one_line(words: list[str], message: str, folder: Path) -> None:
    given = [word.format(folder=folder, photos=folder / "photos") for word in words]
    run = run_here(main, *given)
    assert run.returncode == 2
    assert message in run.stderr.splitlines()[-1]


def test_the_page_has_every_bar_and_needs_nothing_else(
    chain: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert chain.returncode == 0, chain.stderr
    page = (folder / "chain.html").read_text("utf-8")
    events = events_of(folder / "chain.json")
    drawn = Counter(re.findall(r'<i class="bar (\w+)', page))
    assert drawn["batch"] == len(bars(events, "batch"))
    assert drawn["wait"] == len(bars(events, "wait"))
    assert sum(drawn.values()) - drawn["batch"] - drawn["wait"] == len(bars(events, "work"))
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "http" not in page


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_draws_it_without_an_error(
    chain: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert chain.returncode == 0, chain.stderr
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    shown = subprocess.run(
        [str(CHROMIUM), *options, "--dump-dom", (folder / "chain.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CONSOLE" not in shown.stderr
    ticks = re.findall(r'<b style="left: ([\d.]+)%;">', shown.stdout)
    assert len(ticks) > 4
