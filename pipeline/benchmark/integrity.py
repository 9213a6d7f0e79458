"""Checks that no item is lost, duplicated or swapped, and that memory stays flat.

`python -m pipeline.benchmark.integrity REQUEST` is what `python -m loadtest integrity` runs; the
request is a `CheckItems`, and each line of the answer one of `CHECK_ANSWERS`.

Every item is a number. Each node makes a new value of its number and of all that its predecessors
gave it, and fails for some numbers. What must become of an item, its value or the nodes that may
fail it, is computed from its number alone; so an item that gets another one's result, or another
one's error, is found. The last node counts how often each number reaches it.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, ClassVar

from interfaces.benchmark import Checked, Checking, CheckItems, Failed, MemorySample
from interfaces.messages import from_json, to_json
from interfaces.sizes import size_text
from pipeline import TASK_DATA_KEY, TASK_ERROR_KEY, TASK_RESULT_KEY, NodeError, Pipe, pipe
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.benchmark.own_side import own_versions
from pipeline.errors import PipelineConfigError
from pipeline.language.settings import Setting, read_count

CHECK_BACKEND, NODE_SETTING = "MeasureCheck", "measure_node_number"
LARGEST_BATCH = 8
LONGEST_CALL = 8
# Of 1,000 items: how many fail in a node.
FAILING_PER_MILLE = 10
_KEPT_EXAMPLES = 10

# Node to the nodes whose values it gets, in the order in which they go into its own value. Two of
# them join what others forked.
GRAPH: Mapping[str, Sequence[str]] = {
    "split": (),
    "left": ("split",),
    "right": ("split",),
    "join": ("left", "right"),
    "aside": ("right",),
    "last": ("join", "aside"),
}
_NODES = list(GRAPH)
_LAST = _NODES[-1]
_SECOND_KEY = "second"


class ItemFailedError(Exception):
    """What a node raises for an item on purpose."""

    def __init__(self, number: int) -> None:
        super().__init__(f"item {number} fails here")
        self.number = number


def node_value(node: int, number: int, values: Sequence[int]) -> int:
    """The value that a node makes: a hash of all it gets, in 64 bits."""
    return hash((node, number, *values)) & 0xFFFF_FFFF_FFFF_FFFF


def node_fails(node: int, number: int) -> bool:
    """Whether a node fails the item of that number; the last one never does."""
    return node < len(_NODES) - 1 and node_value(node, number, ()) % 1000 < FAILING_PER_MILLE


def expected(number: int) -> tuple[int | None, frozenset[str]]:
    """The value that the item must get, or None and the nodes of which one must fail it."""
    values: dict[str, int] = {}
    failing = set()
    for node, (name, before) in enumerate(GRAPH.items()):
        if all(other in values for other in before):
            if node_fails(node, number):
                failing.add(name)
            else:
                given = [values[other] for other in before] or [number]
                values[name] = node_value(node, number, given)
    return values.get(_LAST), frozenset(failing)


@register(CHECK_BACKEND)
class ItemCheck(Backend):
    """Makes a node's value of the values that it gets.

    Attributes:
        arrivals: by number, how often an item has reached the last node; set before a run.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(NODE_SETTING, read_count, "a whole number of at least 1", 1),
    )
    arrivals: ClassVar[bytearray] = bytearray()
    # Several items, so that they could be mixed up.
    max: int = LARGEST_BATCH

    def init(self, config: InstanceConfig) -> None:
        """Learn which node this is."""
        # Counted from 1 in the settings.
        self._node = int(config.settings[NODE_SETTING]) - 1

    def forward(self, items: Sequence[Item]) -> None:
        """Raise at the first item that fails, which makes the node run the others by themselves."""
        for item in items:
            number, value = item[TASK_DATA_KEY]
            values = [value]
            if _SECOND_KEY in item:
                values.append(item[_SECOND_KEY][1])
            # The values are hashes of their items' numbers: one of another item shows in the end.
            if node_fails(self._node, number):
                raise ItemFailedError(number)
            if self._node == len(_NODES) - 1:
                ItemCheck.arrivals[number] += 1
            item[TASK_RESULT_KEY] = (number, node_value(self._node, number, values))


def document(instances: int) -> dict[str, dict[str, Any]]:
    """The graph as a configuration, with so many instances a node."""
    nodes: dict[str, dict[str, Any]] = {}
    for node, (name, before) in enumerate(GRAPH.items()):
        nodes[name] = {"backend": CHECK_BACKEND, NODE_SETTING: node + 1, "instance_num": instances}
        following = [other for other, sources in GRAPH.items() if name in sources]
        if following:
            nodes[name]["next"] = ",".join(following)
        if len(before) > 1:
            first, second = before
            nodes[name]["map"] = (
                f"{first}[{TASK_RESULT_KEY}:{TASK_DATA_KEY}],"
                f"{second}[{TASK_RESULT_KEY}:{_SECOND_KEY}]"
            )
    return nodes


class ItemFaults:
    """What was wrong; thread-safe."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []
        self._lock = threading.Lock()

    def add(self, kind: str, number: int, seen: object) -> None:
        """Note that something of `kind` became of an item, and what."""
        with self._lock:
            self.counts[kind] += 1
            if len(self.examples) < _KEPT_EXAMPLES:
                self.examples.append(f"item {number}: {kind}: {seen!r}")


def check_outcome(number: int, item: Mapping[str, Any], faults: ItemFaults) -> bool:
    """Compare what became of an item with what must.

    Returns:
        Whether the item must have failed.
    """
    value, failing = expected(number)
    result, error = item.get(TASK_RESULT_KEY), item.get(TASK_ERROR_KEY)
    if (result is None) == (error is None):
        faults.add("lost" if result is None else "result and error", number, dict(item))
    elif error is not None:
        if value is not None or not isinstance(error, NodeError) or error.node not in failing:
            faults.add("failed without a reason", number, error)
        elif getattr(error.cause, "number", None) != number:
            faults.add("error of another item", number, error)
    elif value is None:
        faults.add("result in spite of an error", number, result)
    elif result != (number, value):
        faults.add("result of another item", number, result)
    return value is None


def run_integrity(request: CheckItems, progress: Callable[[str], None]) -> Checked:
    """Send the items through the graph, in calls of 1 to LONGEST_CALL items.

    Raises:
        PipelineConfigError: the graph cannot run.
    """
    graph = document(request.instances)
    # Filled with ones, because memory that was never written is no memory yet.
    ItemCheck.arrivals = bytearray(b"\1") * request.items
    faults = ItemFaults()
    samples = []
    with pipe(graph) as checked, ThreadPoolExecutor(request.clients) as threads:
        run = _Run(checked, request.items, faults)
        start_s = time.perf_counter()
        calling = [threads.submit(run.client, seed) for seed in range(request.clients)]
        while wait(calling, request.sample_s).not_done:
            samples.append(MemorySample(run.done, _rss_bytes()))
            progress(f"{run.done} of {request.items} items, {size_text(_rss_bytes())}")
        wall_s = time.perf_counter() - start_s
        for client in calling:
            client.result()
        samples.append(MemorySample(run.done, _rss_bytes()))
    for number, count in enumerate(ItemCheck.arrivals):
        arrived, must = count - 1, int(expected(number)[0] is not None)
        if arrived != must:
            kind = "never reached the end" if arrived < must else "reached the end too often"
            faults.add(kind, number, arrived)
    return Checked(
        items=run.done,
        failed_on_purpose=run.failed_on_purpose,
        findings=dict(faults.counts),
        examples=faults.examples,
        wall_s=wall_s,
        samples=samples,
        settings={
            "failing_per_mille_a_node": FAILING_PER_MILLE,
            "longest_call": LONGEST_CALL,
            "largest_batch": LARGEST_BATCH,
        },
        document=graph,
        versions=own_versions(),
    )


class _Run:
    """What the clients of one run share."""

    def __init__(self, checked: Pipe, items: int, faults: ItemFaults) -> None:
        self._pipe = checked
        self._items = items
        self._faults = faults
        self._lock = threading.Lock()
        self._next = 0
        self.done = 0
        self.failed_on_purpose = 0

    def client(self, seed: int) -> None:
        """Call until no number is left."""
        generator = random.Random(seed)  # noqa: S311 (no secret)
        while numbers := self._take(generator.randint(1, LONGEST_CALL)):
            items: list[dict[str, Any]] = [{TASK_DATA_KEY: (n, n)} for n in numbers]
            self._pipe(items)
            pairs = zip(numbers, items, strict=True)
            failed = sum(check_outcome(n, item, self._faults) for n, item in pairs)
            with self._lock:
                self.done += len(items)
                self.failed_on_purpose += failed

    def _take(self, count: int) -> range:
        with self._lock:
            first = self._next
            self._next = min(first + count, self._items)
            return range(first, self._next)


def _rss_bytes() -> int:
    """Memory of this process that is in use."""
    resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return resident_pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run what the command line asks for."""

    def answer(message: Checking | Checked | Failed) -> None:
        print(to_json(message), flush=True)  # noqa: T201 (what the process is for)

    request = from_json(sys.argv[1], [CheckItems])
    try:
        answer(run_integrity(request, lambda line: answer(Checking(line))))
    except PipelineConfigError as error:
        answer(Failed(str(error)))


if __name__ == "__main__":
    main()
