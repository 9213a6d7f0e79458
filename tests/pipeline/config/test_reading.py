import pytest

from pipeline.config import parse_config, read_config
from pipeline.errors import PipelineConfigError
from pipeline.language.settings import BatchShape

DECODE = {"backend": "DecodeMat"}


def refusal(document: dict) -> str:
    with pytest.raises(PipelineConfigError) as caught:
        parse_config(document)
    return str(caught.value)


def test_a_node_takes_what_it_does_not_say_itself_from_the_globals() -> None:
    config = parse_config(
        {
            "instance_num": 3,
            "batching_timeout": 5,
            "a": {"backend": "DecodeMat", "next": "b"},
            "b": {"backend": "S[ResizeMat]", "instance_num": 2, "resize_h": "4", "resize_w": 6},
        }
    )
    assert config.nodes["a"].instance_num == 3
    assert config.nodes["b"].instance_num == 2
    assert config.nodes["b"].batching_timeout_ms == 5.0
    assert dict(config.nodes["b"].settings) == {"resize_h": 4, "resize_w": 6}
    assert config.graph.roots == ["a"]


def test_defaults_fill_what_is_not_given() -> None:
    node = parse_config({"m": {"backend": "TensorrtTensor", "model": "x.onnx"}}).nodes["m"]
    assert node.instance_num == 1
    assert node.batching_timeout_ms == 2.0
    assert node.settings["max"] == BatchShape(1)
    assert node.settings["precision"] is None


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (4, BatchShape(4)),
        ("4", BatchShape(4)),
        ("4x3x224x224", BatchShape(4, ((3, 224, 224),))),
        ("4x3x8x8, 4x10", BatchShape(4, ((3, 8, 8), (10,)))),
        ("4,4", BatchShape(4)),
        ("4x3x8x8, 4", BatchShape(4, ((3, 8, 8), ()))),
    ],
)
def test_min_and_max_are_rows_or_shapes(value: object, shape: BatchShape) -> None:
    node = parse_config({"m": {"backend": "TensorrtTensor", "max": value}}).nodes["m"]
    assert node.settings["max"] == shape


def test_of_joined_files_one_is_asked_for() -> None:
    joined = {"backend": "TensorrtTensor", "model": "b1.onnx&b4.onnx", "max": "1&4"}
    _, mistakes = read_config({"m": joined})
    assert len(mistakes) == 2
    assert "any one: its batch is made dynamic" in "".join(mistakes)
    plain = parse_config({"m": {"backend": "TensorrtTensor", "model": "cats&dogs.onnx"}})
    assert plain.nodes["m"].settings["model"] == "cats&dogs.onnx"


def test_the_quick_starts_dangling_next_names_both_nodes_and_the_closest() -> None:
    message = refusal(
        {
            "cpu_decoder": {"backend": "DecodeMat", "next": "cpu_posprocess"},
            "cpu_posdecoder": {"backend": "Mat2Tensor", "next": "resnet50"},
            "resnet50": {"backend": "TensorrtTensor"},
        }
    )
    assert "node 'cpu_decoder' names next = 'cpu_posprocess'" in message
    assert "did you mean 'cpu_posdecoder'?" in message


def test_an_unknown_key_is_refused_with_the_closest_one() -> None:
    message = refusal({"a": {**DECODE, "instance_nun": 2}})
    assert "[a]" in message
    assert "unknown key 'instance_nun'; did you mean 'instance_num'?" in message


def test_an_unknown_global_is_refused_too() -> None:
    message = refusal({"batching_timeot": 2, "a": DECODE})
    assert "global setting" in message
    assert "did you mean 'batching_timeout'?" in message


def test_an_unknown_backend_is_refused_with_the_closest_one() -> None:
    message = refusal({"a": {"backend": "S[DecodeMatt]"}})
    assert "[a] backend: unknown backend 'DecodeMatt'; did you mean 'DecodeMat'?" in message


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("instance_num", 0, "a whole number from 1 to 1024"),
        ("instance_num", True, "a whole number from 1 to 1024"),
        ("instance_num", 10**8, "a whole number from 1 to 1024"),
        ("batching_timeout", -1, "milliseconds, at least 0"),
        ("batching_timeout", "soon", "milliseconds, at least 0"),
        ("max", "4y3", "rows, or a shape"),
        ("precision", "fp8", '"fp32", "fp16", "bf16" or "int8"'),
        ("mean", "1, 2, red", "a number a channel"),
        ("next", "", "the names of the nodes"),
        ("model", 7, "an ONNX file"),
    ],
)
def test_a_value_of_the_wrong_kind_says_what_is_allowed(
    key: str, value: object, allowed: str
) -> None:
    message = refusal({"m": {"backend": "TensorrtTensor", key: value}})
    assert message.startswith(f"[m]: {key} = {value!r}: expected {allowed}")


def test_a_cycle_is_refused_with_its_path() -> None:
    document = {name: {**DECODE, "next": following} for name, following in ("ab", "bc", "ca")}
    assert "nodes form a cycle: a -> b -> c -> a" in refusal(document)


def test_a_cycle_behind_an_entry_is_refused_too() -> None:
    document = {name: {**DECODE, "next": following} for name, following in ("ab", "bc", "cb")}
    assert "nodes form a cycle: b -> c -> b" in refusal(document)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "has no node"),
        ({"a": {"backend": "S"}}, "S needs backends in brackets"),
        ({"a": {"backend": "DecodeMat[ResizeMat]"}}, "write S[DecodeMat,ResizeMat]"),
        ({"a": {"backend": "Torch[DecodeMat,ResizeMat]"}}, "Torch[Sequential[...]]"),
    ],
)
def test_other_mistakes_say_what_to_write(document: dict, expected: str) -> None:
    assert expected in refusal(document)


def test_the_hash_follows_the_content() -> None:
    one = parse_config({"a": DECODE})
    assert one.sha256 == parse_config({"a": dict(DECODE)}).sha256
    assert one.sha256 != parse_config({"a": {**DECODE, "instance_num": 2}}).sha256


def test_each_mistake_is_told_once_and_loading_shows_the_first() -> None:
    """Also those in the graph, and in nodes whose other keys are wrong."""
    document = {
        "instance_num": 0,
        "a": {**DECODE, "next": "b,c,nowhere"},
        "b": {**DECODE, "next": "a,d", "instance_num": 2, "device_id": "x"},
        "c": {**DECODE, "next": "a,d", "resize_hh": 1},
        "d": {**DECODE, "map": "b[result:x],e[result:y],zz[result:z]"},
        "e": {"backend": "MapReduce", "jump": "beyond"},
    }
    config, mistakes = read_config(document)
    for words in (
        "global setting: instance_num = 0",
        "[b]: device_id = 'x'",
        "[c]: unknown key 'resize_hh'",
        "node 'a' names next = 'nowhere'",
        "nodes form a cycle: a -> b -> a",
        "nodes form a cycle: a -> c -> a",
        "[d] map takes 'result' from 'e', which does not come before it",
        "[d] map: 'zz' is no node",
        "[d] map gives x, y, z, and no 'data'",
        "[e] jump = 'beyond' is no node",
    ):
        assert sum(mistake.startswith(words) for mistake in mistakes) == 1, words
    assert len(mistakes) == 10
    assert list(config.nodes) == list("abcde")
    assert config.nodes["b"].instance_num == 2
    assert refusal(document) == mistakes[0]


@pytest.mark.parametrize("line", [{"next": 7}, {"next": "c", "map": "b"}])
def test_a_line_that_cannot_be_read_is_the_only_mistake(line: dict) -> None:
    document = {
        "a": {**DECODE, "next": "b"},
        "b": {**DECODE, **line},
        "c": {**DECODE, "filter": "or"},
    }
    _, mistakes = read_config(document)
    assert len(mistakes) == 1


def test_a_required_value_that_is_wrong_is_not_missing() -> None:
    assert refusal({"a": {"backend": 7}}).startswith("[a]: backend = 7: expected a backend")
    assert read_config({"a": {"backend": 7}})[1] == [refusal({"a": {"backend": 7}})]


def test_unknown_keys_may_be_ignored_but_for_those_that_torchpipe_has() -> None:
    document = {"a": {"backend": "Identity", "instance_nun": 2, "xyz_xyz": 1, "force_range": "1"}}
    config, mistakes = read_config(document, ignore_unknown_keys=True)
    assert config.warnings == (
        "[a]: instance_nun is ignored: no backend reads it; did you mean 'instance_num'?",
        "[a]: xyz_xyz is ignored: no backend reads it.",
    )
    assert len(mistakes) == 1
    assert "torchpipe's key 'force_range'" in mistakes[0]
