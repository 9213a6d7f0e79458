"""torchpipe main's way to run a backend without a pipe around it."""

from __future__ import annotations

import pytest

import thriftpipe.torchpipe as omniback


def test_a_backend_is_created_loaded_and_called() -> None:
    backend = omniback.create("Identity", "api_named")
    assert backend.init({}, None) is backend
    one, two = omniback.Dict({"data": 1}), omniback.Dict({"data": "two"})
    backend(one)
    backend.forward([one, two])
    assert (one["result"], two["result"]) == (1, "two")
    assert omniback.get("api_named") is backend
    with pytest.raises(ValueError, match="is empty"):
        backend([])
    with pytest.raises(KeyError, match="no backend was created as 'other'"):
        omniback.get("other")
    with pytest.raises(RuntimeError, match="Identity is not loaded"):
        omniback.create("Identity").max()
    with pytest.raises(RuntimeError, match="unknown backend 'Nonsense'"):
        omniback.create("S[Identity,Nonsense]")


def test_an_interpreter_takes_its_configuration_from_the_options() -> None:
    config = {"a": {"backend": "Identity", "next": "b"}, "b": {"backend": "Identity"}}
    run = omniback.init("Interpreter", {}, omniback.Dict({"config": config}))
    item = {"data": 1}
    run(item)
    assert item["result"] == 1
    assert run.min() == 1


def test_queues_are_shared_by_name() -> None:
    queue = omniback.default_queue("api")
    queue.put([3])
    assert omniback.default_queue("api").size() == 1
    assert not queue.empty()
    assert queue.get(False) == [3]
    with pytest.raises(RuntimeError, match="empty"):
        queue.get(False)


def test_items_are_dictionaries() -> None:
    item = omniback.Dict({"a": 1, "b": {"inner": "two"}, "c": [1, 2], "d": b"x"})
    item["e"] = 3.5
    item.update(omniback.Dict({"f": True}))
    copy = item.copy()
    assert type(copy) is omniback.Dict
    assert item.pop("a") == 1
    del item["b"]
    assert list(item.keys()) == ["c", "d", "e", "f"]
    assert "a" in copy
    copy.clear()
    assert len(omniback.Dict()) == len(copy) == 0
