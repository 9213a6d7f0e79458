"""The table of torchpipe's names: each is what it says, and its advice works."""

from __future__ import annotations

import re
import shlex
import threading
from typing import Any

import cv2
import numpy as np
import pytest

import pipeline
from pipeline import pipe
from pipeline.backends import registry
from pipeline.backends.assembly import build_backend
from pipeline.backends.filters import filter_named
from pipeline.backends.registry import backend_class, backend_settings
from pipeline.commands.pipeline_arguments import COMMANDS
from pipeline.config import parse_config, read_config
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_STAGE_TIMES_KEY
from pipeline.language.document import parse_toml
from pipeline.language.expression import parse_expression
from pipeline.language.settings import SCHEDULING
from pipeline.language.torchpipe_names import (
    BACKEND,
    FILTER,
    KEY,
    TorchpipeName,
    Verdict,
    torchpipe_names,
    unknown_backend,
    unknown_filter,
    unknown_key,
    why_ignored,
)
from service.options.server_arguments import parse_arguments

ROWS = [row for kind in (BACKEND, FILTER, KEY) for row in torchpipe_names(kind).values()]
KNOWN_KEYS = {**{setting.name: setting for setting in SCHEDULING}, **backend_settings()}
LOOK_UP = {BACKEND: backend_class, FILTER: filter_named, KEY: KNOWN_KEYS.__getitem__}


def is_here(row: TorchpipeName) -> bool:
    try:
        LOOK_UP[row.kind](row.name)
    except (KeyError, PipelineConfigError):
        return False
    return True


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}-{row.name}")
def test_each_name_is_what_the_table_says(row: TorchpipeName) -> None:
    if row.verdict is Verdict.HERE:
        assert is_here(row)
    elif row.verdict is Verdict.ALIAS:
        look_up = LOOK_UP[row.kind]
        assert look_up(row.name) is look_up(row.text)
    elif row.verdict is Verdict.INSTEAD:
        assert not is_here(row)
    else:
        assert is_here(row) == (row.kind == BACKEND)
        assert why_ignored(row.name, row.kind)


def test_every_row_names_its_sources_and_has_one_verdict() -> None:
    for row in ROWS:
        assert row.sources
        assert row.sources.keys() <= {"v0", "main"}
        assert all(row.sources.values())
        known_by_name = "by name only" in row.sources.values()
        assert known_by_name == ("known by name only" in row.text)
        assert row.text or row.verdict is Verdict.HERE
        assert not row.brackets or (row.verdict, row.kind) == (Verdict.IGNORED, BACKEND)
    assert len(torchpipe_names(BACKEND)) > 200


def advised(row: TorchpipeName) -> list[str]:
    """What a text has in backticks."""
    return re.findall(r"`([^`]+)`", row.text)


@pytest.mark.parametrize("words", sorted({words for row in ROWS for words in advised(row)}))
def test_what_an_advice_names_exists(words: str) -> None:
    assert "`" not in words
    if words.startswith("pipeline."):
        assert hasattr(pipeline, words.removeprefix("pipeline."))
    elif words.startswith("python -m pipeline "):
        assert words.split()[3] in COMMANDS
    elif words.startswith("--"):
        parse_arguments(["--handler", "pipeline", *shlex.split(words)])
    elif " = " in words:
        ((key, value),) = parse_toml(words).items()
        KNOWN_KEYS[key].parse(value, "advice")
    elif "NAME" in words:
        parse_expression(words)
    elif "[" in words or "(" in words:
        build_backend(parse_expression(words))
    else:
        assert words in {*KNOWN_KEYS, TASK_STAGE_TIMES_KEY, "class", "score"} or is_backend(words)


def is_backend(name: str) -> bool:
    try:
        backend_class(name)
    except PipelineConfigError:
        return False
    return True


def test_the_advice_for_a_result_that_is_to_be_kept_works() -> None:
    backend = "S[Sleep(time=0),KeyA2KeyB,CopySplit]"
    item = {"data": 7}
    with pipe({"node": {"backend": backend, "key_a": "data", "key_b": "kept"}}) as run:
        run(item)
    assert (item["kept"], item["result"]) == (7, [7])


def test_a_node_of_another_ones_instances_is_a_jump() -> None:
    """As `borrow_from` says."""
    document = {
        "lender": {"backend": "CopySplit"},
        "borrower": {"backend": "Jump", "jump": "lender"},
    }
    item = {"data": 7, "node_name": "borrower"}
    with pipe(document) as run:
        run(item)
    assert item["result"] == [7]


def test_the_letter_box_is_centred_and_black_with_the_same_keys() -> None:
    """As `PPLResizeCenterPadTensor` says."""
    node = {"backend": "S[LetterBoxMat,Mat2Tensor]", "resize_h": 4, "resize_w": 8}
    item: dict[str, Any] = {"data": np.full((6, 6, 3), 9, np.uint8)}
    with pipe({"node": node}) as run:
        run(item)
    assert item["result"].shape == (1, 3, 4, 8)
    assert item["result"][0, 0, 0].tolist() == [0, 0, 9, 9, 9, 9, 0, 0]


def test_the_matrix_of_an_affine_warp_leads_from_the_result_to_the_image() -> None:
    """As `PPLWarpAffineTensor` says."""

    @pipeline.register_backend(name="TorchpipeNamesWarp")
    class Warp:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

        def forward(self, items: list[dict[str, Any]]) -> None:
            for item in items:
                matrix = np.float32(item["affine_matrix"]).reshape(2, 3)
                item["result"] = cv2.warpAffine(item["data"], matrix, (4, 3), flags=self.flags)

    image = np.arange(6 * 7 * 3, dtype=np.uint8).reshape(6, 7, 3)
    item: dict[str, Any] = {"data": image, "affine_matrix": [1, 0, 2, 0, 1, 1]}
    with pipe({"node": {"backend": "S[TorchpipeNamesWarp,Mat2Tensor]"}}) as run:
        run(item)
    np.testing.assert_array_equal(item["result"][0].permute(1, 2, 0), image[1:4, 2:6])


def test_without_waiting_what_has_come_is_a_batch() -> None:
    """As `batching_timeout` says of 0."""
    sizes = []
    all_have_come = threading.Event()

    @pipeline.register_backend(name="TorchpipeNamesSizes")
    class Sizes:
        def max(self) -> int:
            return 4

        def forward(self, items: list[dict[str, Any]]) -> None:
            all_have_come.wait()
            sizes.append(len(items))
            for item in items:
                item["result"] = item["data"]

    with pipe({"node": {"backend": "TorchpipeNamesSizes", "batching_timeout": 0}}) as run:
        left = threading.Semaphore(0)
        for number in range(4):
            run.submit({"data": number}, lambda *_: left.release())
        all_have_come.set()
        for _ in range(4):
            assert left.acquire(timeout=60)
    assert sum(sizes) == 4
    assert max(sizes) > 1


@pytest.mark.parametrize("key", ["RangeMerger::backend", "Instances::backend"])
def test_schedulers_named_by_a_key_are_ignored(key: str) -> None:
    config, mistakes = read_config({"node": {"backend": "Identity", key: "MultipleInstances"}})
    assert not mistakes
    assert any(f"{key} is ignored: every node schedules itself" in it for it in config.warnings)


def refusal(node: dict[str, object]) -> str:
    with pytest.raises(PipelineConfigError) as caught:
        parse_config({"node": node})
    return str(caught.value)


def test_a_refusal_says_what_to_use() -> None:
    message = refusal({"backend": "S[DecodeMat,HasKey]"})
    assert "torchpipe's backend 'HasKey' is not supported here: use a filter of your own" in message
    assert "`" not in message
    message = refusal({"backend": "Identity", "filter": "half_chance"})
    assert "torchpipe's filter 'half_chance' is not supported here: write it in Python" in message
    message = refusal({"backend": "Identity", "save_engine": "x.trt"})
    assert (
        "[node]: torchpipe's key 'save_engine' is not supported here: use model::cache" in message
    )


def test_a_name_that_the_user_has_registered_is_not_the_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "backend 'Add' is not supported here" in refusal({"backend": "S[Identity,Add"})
    monkeypatch.setitem(registry._BACKENDS, "Add", backend_class("Identity"))
    assert "expected ',' or ']'" in refusal({"backend": "S[Identity,Add"})


def test_no_name_of_torchpipes_is_taken_for_a_slip() -> None:
    for row in ROWS:
        if row.verdict is Verdict.INSTEAD:
            say = {BACKEND: unknown_backend, FILTER: unknown_filter, KEY: unknown_key}[row.kind]
            message = say(row.name, ["ResizeTensor", row.name[:-1]])
            assert "did you mean" not in message
            assert "not supported here" in message


def test_a_slip_is_told_as_ever() -> None:
    assert "did you mean 'DecodeMat'?" in unknown_backend("DecodeMatt", ["DecodeMat"])
    assert "did you mean 'max'?" in unknown_key("maxx", ["max"])
    assert "did you mean 'swap'?" in unknown_filter("swapp", ["swap"])


def test_ignored_backends_let_the_data_pass() -> None:
    for row in torchpipe_names(BACKEND).values():
        if row.verdict is Verdict.IGNORED:
            backend = f"S[{row.name}[Identity]]" if row.brackets else f"S[{row.name}]"
            item = {"data": "x"}
            with pipe({"node": {"backend": backend}}) as run:
                run(item)
            assert item["result"] == "x"


def test_what_does_nothing_is_said_once() -> None:
    backend = "S[FixTensor,Identity(priority=1),FakeInstance[Identity],FixTensor]"
    document = {"node": {"backend": backend, "scheduler": "Batching"}, "log_level": "info"}
    config, mistakes = read_config(document)
    assert not mistakes
    said = sorted(config.warnings)
    assert len(said) == 5
    text = "\n".join(said)
    for part in (
        "[node] backend: FixTensor does nothing here: the engine's node checks shapes",
        "[node] backend: FakeInstance does nothing here: every node schedules itself",
        "[node] backend: Identity(...): priority is ignored: instances have one priority",
        "[node]: scheduler is ignored: every node schedules itself",
        "global setting: log_level is ignored: messages go through Python's own logging",
    ):
        assert part in text


def test_the_advice_to_choose_by_a_filter_works() -> None:
    name = "torchpipe_names_has_color"

    @pipeline.register_filter(name)
    def has_color(item: dict[str, object]) -> pipeline.Status:
        return pipeline.Status.RUN if "color" in item else pipeline.Status.SKIP

    items = [{"data": "x", "color": "rgb"}, {"data": "x"}]
    with pipe({"node": {"backend": f"S[({name})CopySplit,(or)Identity]"}}) as run:
        run(items)
    assert [item["result"] for item in items] == [["x"], "x"]
