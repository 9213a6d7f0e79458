"""When the outcomes of a case on both sides are the same.

What they differ in on purpose is left out here and held by `test_differences`.
"""

from __future__ import annotations

import struct

from tests.parity.messages import SINGLE, Case, Outcome, PlainItem

_ONE_SIDED = {"data", "node_name", "event", "error", "stage_times_ms", "data_format"}


def differences(case: Case, reference: Outcome, ours: Outcome) -> list[str]:
    """What is not the same, a line each.

    A list call of torchpipe's ends at the first item that fails; as with events, the rest of that
    item's batch fails, too, and what a sequence had so far is left behind. So the items of such
    calls are compared where none fails; where one does, ours must be what they are in calls of
    their own, in which both sides must agree.

    Args:
        case: what both sides have run; each item of a list has a single call before it.
        reference: torchpipe's outcome; it has opened the pipe.
        ours: this project's.
    """
    if ours.refused:
        return [f"torchpipe runs it, ours refuses it: {ours.refused}"]
    found = []
    alone: dict[str, PlainItem] = {}
    # Side by side, which exception comes first is a matter of chance.
    in_a_row = not any("map" in node for node in case.document.values())
    for call, theirs, own in zip(case.calls, reference.answers, ours.answers, strict=True):
        where = f"{call.kind} call with {call.items}"
        # Both of an item without a result, and of one whose call has raised.
        fails = theirs.raised is not None or not all(map(_is_filled, theirs.items))
        if fails == all(map(_is_filled, own.items)):
            found.append(f"{where}: what fails: torchpipe {theirs}, ours {own}")
            continue
        if not fails:
            found += _items(f"{where}: torchpipe", theirs.items, own.items)
        if call.kind == SINGLE:
            alone[repr(call.items[0])] = own.items[0]
            if in_a_row and _of_a_backend(theirs.raised) != _of_a_backend(own.raised):
                found.append(f"{where}: raised: torchpipe {theirs.raised}, ours {own.raised}")
        elif all(repr(item) in alone for item in call.items):
            found += _items(f"{where}: alone", [alone[repr(i)] for i in call.items], own.items)
    return found


def _items(where: str, some: list[PlainItem], others: list[PlainItem]) -> list[str]:
    """Where items differ; of those that have failed only that they have."""
    found = []
    for one, other in zip(some, others, strict=True):
        if _is_filled(one) != _is_filled(other) or (
            _is_filled(one) and comparable(one) != comparable(other)
        ):
            found.append(f"{where} {one}, ours {other}")
    return found


def _of_a_backend(raised: str | None) -> str | None:
    """What a backend of the case's own has raised; other errors have words of their own."""
    return raised if raised and raised.startswith("ValueError") else None


def comparable(item: PlainItem) -> PlainItem:
    """The item without what differs on purpose.

    `data` is the caller's again in ours; `scale` has 64 bits in ours, and 32 in torchpipe's.
    """
    left = {key: value for key, value in item.items() if key not in _ONE_SIDED}
    if isinstance(left.get("scale"), float):
        left["scale"] = struct.unpack("f", struct.pack("f", left["scale"]))
    return left


def _is_filled(item: PlainItem) -> bool:
    return "result" in item
