"""What is told of a process's end."""

from __future__ import annotations

from service.processes.exit_reasons import how_it_ended, oom_kills


def test_a_kill_is_put_down_to_memory_if_the_kernel_has_counted_one() -> None:
    kills = oom_kills()
    assert how_it_ended(-9, kills) == "killed by SIGKILL, and not for lack of memory"
    told = how_it_ended(-9, kills - 2)
    assert "killed by SIGKILL, most likely because memory ran out" in told
    assert "has killed 2 for that meanwhile" in told


def test_other_ends_are_what_they_are() -> None:
    assert how_it_ended(7, -1) == "exit code 7"
    assert how_it_ended(-11, -1) == "killed by SIGSEGV"
    assert how_it_ended(-63, -1) == "killed by signal 63"
