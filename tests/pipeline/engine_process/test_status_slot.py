"""What one end of a connection leaves in the status slot, the other one reads."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from pipeline.engine_process.slots import SlotMemory
from pipeline.engine_process.status_slot import Pulse, StatusSlot

SLOT_BYTES = 2 * mmap.PAGESIZE


@pytest.fixture
def both_ends() -> Iterator[tuple[StatusSlot, StatusSlot]]:
    ours = SlotMemory.create(2, SLOT_BYTES)
    theirs = SlotMemory(os.dup(ours.fd), 2, SLOT_BYTES)
    yield ours.status_slot(1), theirs.status_slot(1)
    ours.close()
    theirs.close()


def test_a_status_is_a_text(both_ends: tuple[StatusSlot, StatusSlot]) -> None:
    ours, theirs = both_ends
    assert ours.status() == ""
    theirs.put_status("no instance: größer")
    assert ours.status() == "no instance: größer"
    theirs.put_status("x" * SLOT_BYTES)
    assert ours.status() == "x" * 2048
    theirs.put_status("")
    assert ours.status() == ""


def test_a_pulse_and_counts_stay_beside_the_status(
    both_ends: tuple[StatusSlot, StatusSlot],
) -> None:
    ours, theirs = both_ends
    assert ours.counts() == b""
    theirs.put_pulse(Pulse(7, is_loading=True))
    theirs.put_counts(b"numbers")
    theirs.put_status("x" * SLOT_BYTES)
    assert ours.pulse() == Pulse(7, is_loading=True)
    assert ours.counts() == b"numbers"


def test_counts_that_do_not_fit_leave_those_before(
    both_ends: tuple[StatusSlot, StatusSlot],
) -> None:
    ours, theirs = both_ends
    theirs.put_counts(b"numbers")
    theirs.put_counts(bytes(SLOT_BYTES))
    assert ours.counts() == b"numbers"
