"""Whatever is in a configuration, an expression or a label file: no traceback."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.commands.dispatch import main
from pipeline.config import parse_config
from pipeline.errors import PipelineConfigError
from pipeline.language.document import apply_overrides, read_toml
from pipeline.language.expression import parse_expression
from pipeline.language.settings import SCHEDULING, Setting, read_count, read_map
from service.cli import main as serve
from service.errors import ConfigurationError
from service.labels import read_labels
from tests.serving import TIMEOUT_S

MOST_CHARACTERS = 2000
BASE = {"a": {"backend": "S[ResizeMat,TensorrtTensor]"}}
KEYS = sorted(
    {setting.name for setting in SCHEDULING} | {"max", "min", "mean", "resize_h", "range"}
)

# Every character there is, halves of surrogate pairs and NUL among them.
texts = st.text(st.characters(codec=None), max_size=40)
symbols = st.text(st.sampled_from("SA[](){},=.'\"\\ \n\t:;&#09xe-_\0\udcff"), max_size=60)
numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.integers(4000, 6000).map("9".__mul__),
    st.integers(10, 5000).map(lambda count: f"0x{'f' * count}"),
)
nested = st.tuples(st.sampled_from(["[", "{a=", '["', "S["]), st.integers(1, 3000)).map(
    lambda it: it[0] * it[1]
)
closed = st.integers(1, 390).map(lambda depth: "[" * depth + "]" * depth)
values = st.one_of(texts, symbols, numbers, nested, closed, numbers.map('"{}"'.format))
QUICK = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(error: Exception) -> None:
    assert str(error)


@QUICK
@given(st.sampled_from(KEYS), st.booleans(), values)
@example("instance_num", False, "[" * 5000)
@example("instance_num", False, "9" * 5000)
@example("instance_num", False, "0x" + "f" * 5000)
@example("batching_timeout", False, "1" * 400)
@example("map", True, "a" + " " * 50_000)
@example("next", True, '"' + "a," * 1000 + '"')
def test_set(key: str, of_node: bool, value: str) -> None:
    overrides = {f"a.{key}" if of_node else key: value}
    try:
        parse_config(apply_overrides(BASE, overrides))
    except PipelineConfigError as error:
        refused(error)


@QUICK
@given(values)
@example("S[" * 5000)
@example("A(k='" + "\\\\" * 5000)
def test_expression(text: str) -> None:
    with contextlib.suppress(PipelineConfigError):
        parse_expression(text)


@QUICK
@given(
    st.one_of(st.binary(max_size=200), values.map(lambda it: f"a = {it}".encode(errors="replace")))
)
@example(b"[" + b"a." * 5000 + b"a]")
@example(b"\xff\xfea\0")
def test_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    try:
        parse_config(read_toml(path))
    except PipelineConfigError as error:
        refused(error)
    with contextlib.suppress(ConfigurationError):
        read_labels(path)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@QUICK
@given(st.dictionaries(st.sampled_from([*KEYS, "a"]), json_values, max_size=4))
def test_dictionaries(document: dict[str, Any]) -> None:
    try:
        parse_config({**document, **BASE})
    except PipelineConfigError as error:
        refused(error)


def test_a_list_that_holds_itself() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PipelineConfigError, match="nest too deeply"):
        parse_config({**BASE, "mean": endless})


def test_a_count_that_no_memory_holds() -> None:
    with pytest.raises(PipelineConfigError, match=r"of at least 1, at most 1000000000000$"):
        Setting("max", read_count, "a whole number of at least 1").parse(10**15, "[a]")


def test_too_many_nodes() -> None:
    count = 3000
    document = {
        f"n{number}": {"backend": "DecodeMat", "next": f"n{(number + 1) % count}"}
        for number in range(count)
    }
    with pytest.raises(PipelineConfigError, match="has 3000 nodes, at most 256"):
        parse_config(document)


def test_as_many_nodes_in_a_row_as_there_may_be() -> None:
    document: dict[str, dict[str, str]] = {
        f"n{number}": {"backend": "DecodeMat", "next": f"n{number + 1}"} for number in range(255)
    }
    document["n255"] = {"backend": "DecodeMat"}
    order = parse_config(document).graph.upstream_first()
    assert order == list(document)
    document["n255"]["next"] = "n0"
    with pytest.raises(PipelineConfigError, match="nodes form a cycle: n0 -> n1 -> "):
        parse_config(document)


@pytest.mark.parametrize(
    "text",
    [
        "B[a:b]x",
        "B[a:b],,C[c:d]",
        ",B[a:b]",
        "B[a:b],",
        "B[[a:b]]",
        "B]a:b[",
        "B[a]",
        "[a:b],B[c:d]",
    ],
)
def test_what_is_no_map(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (a reader's; the message is the setting's)
        read_map(text)


def test_blanks_in_a_map() -> None:
    first, second = read_map(" B [ a : b ] , C[c:d] ")
    assert (first.source, first.taken, first.given) == ("B", "a", "b")
    assert (second.source, second.taken, second.given) == ("C", "c", "d")


SET = {
    "[" * 5000: "brackets or keys nest too deeply",
    "9" * 5000: "a whole number is too long",
    "0x" + "f" * 5000: "a whole number has 20000 bits",
    '"' + "9" * 5000 + '"': "expected a whole number",
    "1000000000000000": "expected a whole number from 1 to 1024\n",
}


@pytest.mark.parametrize(("value", "said"), SET.items(), ids=range(len(SET)))
def test_the_command_lines_say_so(
    tmp_path: Path, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "graph.toml"
    toml.write_text('[only]\nbackend = "DecodeMat"\n')
    assert main(["check", str(toml), "--set", f"instance_num={value}"]) != 0
    checked = capsys.readouterr()
    assert serve(["--handler", "pipeline", "--port", "0", "--set", f"instance_num={value}"]) == 2
    for text in (checked.out + checked.err, capsys.readouterr().err):
        assert said in text
        assert "Traceback" not in text
        assert len(text) < MOST_CHARACTERS


def test_an_image_that_no_memory_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """At the start, and not by OpenCV when the first image comes."""
    given = "cpu_decoder.resize_h=99999999"
    assert serve(["--handler", "pipeline", "--port", "0", "--set", given]) == 2
    said = "resize_h = 99999999: expected a height in pixels, 1 to 8192\n"
    assert said in capsys.readouterr().err


def test_a_batch_that_no_memory_holds() -> None:
    command = [sys.executable, "-m", "service", "--handler", "baseline", "--port", "0"]
    result = subprocess.run(
        [*command, "--model", "efficientnet_lite0", "--max-batch-size", "1000000000000"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 2
    assert "there is no memory for batches of 1000000000000 rows" in result.stderr
    assert "Traceback" not in result.stderr
