"""Backends in plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline import PipelineConfigError, PythonBackend, pipe, register_backend
from pipeline.config import read_config


def test_the_readmes_example() -> None:
    text = (Path(pipeline.__file__).parent / "README.md").read_text(encoding="utf-8")
    (example,) = [
        code.partition("```")[0]
        for code in text.split("```python\n")
        if "register_backend(name=" in code.partition("```")[0]
    ]
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 15
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102 (this project's own text)
    items = [{"data": number} for number in range(20)]
    names["run"](items)
    names["run"].close()
    assert [item["result"] for item in items] == [number * 2.5 for number in range(20)]
    assert isinstance(names["Scale"](), PythonBackend)


def test_as_torchpipe_registers_them() -> None:
    class Upper:
        def forward(self, items: list[dict[str, Any]]) -> None:
            assert len(items) == 1
            items[0]["result"] = items[0]["data"].upper()

    assert register_backend(Upper, "TestUpper") is Upper
    item = {"data": "x"}
    with pipe({"node": {"backend": "S[TestUpper,TestText]"}}) as run:
        run(item)
    assert item["result"] == "text X"


def test_only_those_at_fault_fail() -> None:
    @register_backend(name="TestInverse")
    class Inverse:
        def max(self) -> int:
            return 4

        def forward(self, items: list[dict[str, Any]]) -> None:
            for item in items:
                item["result"] = 1 / item["data"]

    items = [{"data": number} for number in (1, 2, 0, 4)]
    with pipe({"node": {"backend": "TestInverse"}}) as run:
        run(items)
    assert [item.get("result") for item in items] == [1.0, 0.5, None, 0.25]
    assert str(items[2]["error"]) == "node 'node': division by zero"


def test_a_key_that_an_item_lacks_is_told_as_such() -> None:
    @register_backend(name="TestLacking")
    class Lacking:
        def forward(self, items: list[dict[str, Any]]) -> None:
            items[0]["result"] = items[0]["color"]

    item: dict[str, Any] = {"data": 1}
    with pipe({"node": {"backend": "TestLacking"}}) as run:
        run(item)
    assert str(item["error"]) == "node 'node': KeyError: 'color'"


class _NoForward:
    pass


class _WrongForward:
    def forward(self) -> None:
        pass


class _MaxIsANumber:
    max = 4

    def forward(self, items: list[dict[str, Any]]) -> None:
        pass


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (_NoForward, "_NoForward has no forward(items)"),
        (_WrongForward, "_WrongForward.forward cannot be called as forward(items)"),
        (_MaxIsANumber, "_MaxIsANumber.max is 4: expected a method"),
        (_NoForward(), "register_backend takes a class, got"),
    ],
)
def test_a_class_that_is_no_backend_is_told_what_it_lacks(cls: Any, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        register_backend(cls, "TestRefused")
    assert words in str(caught.value)


def test_a_name_is_taken_once_and_a_key_has_to_be_named() -> None:
    class Keep:
        def forward(self, items: list[dict[str, Any]]) -> None:
            pass

    with pytest.raises(ValueError, match="backend 'DecodeMat' is registered already"):
        register_backend(Keep, "DecodeMat")
    register_backend(Keep, "TestKeyless", keys=[])
    with pytest.raises(PipelineConfigError, match="unknown key 'treshold'"):
        pipe({"node": {"backend": "TestKeyless", "treshold": 1}})


@register_backend(name="TestGivesConfig")
class GivesConfig:
    """The result is what `init` got."""

    def init(self, config: dict[str, Any]) -> None:
        self.config = config

    def forward(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            item["result"] = self.config


def test_a_class_without_keys_gets_all_of_its_node() -> None:
    backend = "S[TestText,TestGivesConfig(here=1)]"
    document = {
        "shared": 3,
        "batching_timeout": 5,
        "own": {"backend": backend, "treshold": 0.5, "resize_h": "12", "next": "Text"},
        "Text": {"backend": "Identity"},
    }
    item = {"data": 0}
    with pipe(document) as run:
        run(item)
    assert item["result"] == {
        "shared": 3,
        "batching_timeout": 5,
        "backend": backend,
        "treshold": 0.5,
        "resize_h": "12",
        "next": "Text",
        "here": "1",
        "node_name": "own",
    }
    document["Text"]["treshold"] = 0.5
    with pytest.raises(PipelineConfigError, match=r"\[Text\]: unknown key 'treshold'"):
        pipe(document)


def test_a_key_that_is_nearly_a_nodes_own_is_a_warning() -> None:
    document = {"a": {"backend": "TestGivesConfig", "instance_nun": 2, "threshold": 1}}
    config, mistakes = read_config(document)
    assert not mistakes
    (warning,) = config.warnings
    assert "instance_nun is handed to a backend in Python; did you mean 'instance_num'" in warning


def test_python_in_front_is_torchpipes_spelling() -> None:
    item = {"data": 0}
    with pipe({"backend": "Python[TestGivesConfig]", "any_key": [1]}) as run:
        run(item)
    assert item["result"]["any_key"] == [1]


def test_keys_of_others_are_read_as_they_read_them() -> None:
    @register_backend(name="TestSized", keys=["resize_h", "anything"])
    class Sized:
        def init(self, config: dict[str, Any]) -> None:
            self.config = config

        def forward(self, items: list[dict[str, Any]]) -> None:
            for item in items:
                item["result"] = self.config

    item = {"data": 0}
    with pipe({"node": {"backend": "TestSized", "resize_h": "12", "anything": [1]}}) as run:
        run(item)
    assert item["result"] == {"resize_h": 12, "anything": [1]}
    with pytest.raises(ValueError, match="'next' is a setting of every node"):
        register_backend(Sized, "TestUnsized", keys=["next"])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3, 2), (1, "4")])
def test_min_and_max_make_sense(low: Any, high: Any) -> None:
    class Odd:
        def min(self) -> Any:
            return low

        def max(self) -> Any:
            return high

        def forward(self, items: list[dict[str, Any]]) -> None:
            pass

    register_backend(Odd, f"TestOdd{low}{high}")
    with pytest.raises(PipelineConfigError, match=r"Odd(\.| has )"):
        pipe({"node": {"backend": f"TestOdd{low}{high}"}})
