"""Sleep and RuntimeError."""

from __future__ import annotations

import pytest

from pipeline import PipelineConfigError, pipe


def test_sleep_takes_its_time_and_hands_on_the_data() -> None:
    items = [{"data": number} for number in range(3)]
    with pipe({"node": {"backend": "Sleep", "Sleep::time": 20, "instance_num": 3}}) as run:
        run(items)
    assert [item["result"] for item in items] == [0, 1, 2]
    # The lower bound is exact; an upper one would depend on the machine.
    assert all(item["stage_times_ms"]["node.forward"] >= 20 for item in items)


def test_sleep_reads_text_and_refuses_the_past() -> None:
    with pipe({"node": {"backend": "Sleep", "Sleep::time": "0"}}) as run:
        run({"data": 1})
    with pytest.raises(PipelineConfigError, match="time = '-1': expected milliseconds"):
        pipe({"node": {"backend": "Sleep", "Sleep::time": -1}})


@pytest.mark.parametrize("name", ["RuntimeError", "C10Exception"])
def test_runtime_error_fails_every_item_and_the_instance_lives(name: str) -> None:
    items = [{"data": "x"} for _ in range(20)]
    with pipe({"node": {"backend": name}}) as run:
        run(items)
        assert not run.why_not_ready()
    assert all("fails every item, here data of type str" in str(item["error"]) for item in items)


def test_a_second_attempt_follows_a_failing_one() -> None:
    item = {"data": "x"}
    with pipe({"node": {"backend": "S[RuntimeError,(or)Identity]"}}) as run:
        run(item)
    assert item["result"] == "x"
