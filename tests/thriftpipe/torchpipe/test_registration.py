"""Backends and filters in Python, in all forms in which torchpipe takes them."""

from __future__ import annotations

from typing import Any

import pytest

import thriftpipe.torchpipe as torchpipe


class _Adds:
    by = 1

    def forward(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            item["result"] = item["data"] + self.by


class _Newer(_Adds):
    by = 2


class _WithOptions(_Adds):
    max = 4

    def init(self, config: dict[str, str], options: Any) -> None:
        assert options is None
        assert all(type(value) is str for value in config.values())


class _Refuses(_Adds):
    def init(self, config: dict[str, str]) -> bool:
        return "backend" in config and False


class _Needs(_Adds):
    def __init__(self, by: int) -> None:
        self.by = by


def _run(item: dict[str, Any]) -> Any:
    return torchpipe.Status.Run if "data" in item else torchpipe.Status.Error


class _OnlyMultiples:
    def init(self, config: dict[str, str], options: Any) -> None:
        assert options is None
        self.of = int(config["of"])

    def forward(self, item: dict[str, Any]) -> Any:
        return torchpipe.Status.Run if item["data"] % self.of == 0 else torchpipe.Status.Skip


def result(backend: str, data: Any) -> Any:
    with torchpipe.pipe({"only": {"backend": backend}}) as run:
        return run(data=data)


def test_a_class_or_an_object_is_registered_in_either_order() -> None:
    torchpipe.register_backend(_Adds, "ApiAdds1")
    torchpipe.register("ApiAdds2", _Adds)
    torchpipe.register("ApiAdds3", _Newer())
    torchpipe.backends.register_backend("ApiAdds4", _Adds)
    torchpipe.backends.backend("ApiAdds5")(_WithOptions)
    torchpipe.backends.register_backend("ApiAdds6", _Adds, singleton=True)
    torchpipe.register_backend("ApiAdds7")(_Adds)
    torchpipe.register_backend(_Adds)
    results = [result(f"ApiAdds{number}", 1) for number in range(1, 8)]
    assert [*results, result("_Adds", 1)] == [2, 2, 3, 2, 2, 2, 2, 2]
    assert torchpipe.backends.get_backend("ApiAdds4") is _Adds
    assert torchpipe.backends.get_backend_meta("ApiAdds4").name == "ApiAdds4"
    assert "ApiAdds5" in torchpipe.backends.list_backends()
    assert "ApiAdds7" in torchpipe.list_backends()
    assert torchpipe.is_registered("ApiAdds7")


def test_a_name_may_be_registered_again_but_for_our_own() -> None:
    torchpipe.register_backend(_Adds, "ApiAgain")
    assert result("ApiAgain", 1) == 2
    torchpipe.register_backend(_Newer, "ApiAgain")
    assert result("ApiAgain", 1) == 3
    with pytest.raises(ValueError, match="'DecodeMat' is registered already"):
        torchpipe.register_backend(_Adds, "DecodeMat")


@pytest.mark.parametrize(
    ("target", "name", "words"),
    [
        (object, "ApiBad", "ApiBad has no forward method"),
        (_Needs, "ApiBad", "without arg"),
        (_Adds, 3, "a name is a text, got int"),
    ],
)
def test_what_cannot_be_a_backend_is_refused(target: Any, name: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        torchpipe.register_backend(target, name)
    with pytest.raises(ValueError, match="must not be empty"):
        torchpipe.register("", _Adds)


def test_an_init_that_gives_false_fails_the_load() -> None:
    torchpipe.register_backend(_Refuses, "ApiRefuses")
    with pytest.raises(RuntimeError, match=r"ApiRefuses.init gave False"):
        result("ApiRefuses", 1)


def test_a_range_that_makes_no_sense_is_told_with_the_backends_name() -> None:
    class Odd(_Adds):
        max = 0

    torchpipe.register_backend(Odd, "ApiOdd")
    with pytest.raises(RuntimeError, match=r"ApiOdd.max\(\) gave 0: expected a whole number"):
        result("ApiOdd", 1)


def test_filters_are_classes_or_functions() -> None:
    torchpipe.register_backend(_Newer, "ApiFiltered")
    torchpipe.register_filter(_OnlyMultiples, "api_even")
    torchpipe.register_filter(_run, "api_run")
    torchpipe.register_filter("api_decorated")(_run)
    for name, odd in (("api_even", 1), ("api_run", 3), ("api_decorated", 3)):
        graph = {
            "first": {"backend": "Identity", "next": "second"},
            "second": {"backend": "ApiFiltered", "filter": name, "of": 2},
            "third": {"backend": "Identity"},
        }
        with torchpipe.pipe(graph) as run:
            assert run(data=1, node_name="first") == odd
            assert run(data=2, node_name="first") == 4
    torchpipe.register_filter(_run, "api_run")


def test_what_a_filter_raises_is_raised() -> None:
    def broken(item: dict[str, Any]) -> Any:
        raise LookupError(f"no such thing as {item['data']}")

    torchpipe.register_filter(broken, "api_broken")
    graph = {
        "first": {"backend": "Identity", "next": "second"},
        "second": {"backend": "Identity", "filter": "api_broken"},
    }
    with torchpipe.pipe(graph) as run, pytest.raises(LookupError, match="no such thing"):
        run({"data": 1})
