"""This project's side of the benchmark; see `side`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import ClassVar

from interfaces.benchmark import (
    COPY_BACKEND,
    LARGEST_SETTING,
    SLEEP_BACKEND,
    SMALLEST_SETTING,
    Document,
)
from interfaces.versions import package_versions
from pipeline import pipe
from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.benchmark.side import Call, OpenPipe, copy_data, serve, sleep_longest
from pipeline.language.settings import Setting, read_count


@register(COPY_BACKEND)
class Copy(Backend):
    """Does nothing with batches of a size that its settings say."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(SMALLEST_SETTING, read_count, "a whole number of at least 1", 1),
        Setting(LARGEST_SETTING, read_count, "a whole number of at least 1", 1),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the batch sizes."""
        self.min = int(config.settings[SMALLEST_SETTING])
        self.max = int(config.settings[LARGEST_SETTING])

    def forward(self, items: Sequence[Item]) -> None:
        """Hand the data on."""
        copy_data(items)


@register(SLEEP_BACKEND)
class Sleep(Copy):
    """Takes as long as its items say."""

    def forward(self, items: Sequence[Item]) -> None:
        """Sleep once for the whole batch."""
        sleep_longest(items)


def own_versions() -> dict[str, str]:
    """Versions of what runs below our pipes."""
    return {"python": platform.python_version(), **package_versions(("thriftpipe", "torch"))}


def start() -> tuple[OpenPipe, dict[str, str]]:
    """What opens our pipes, and the versions under them."""

    def open_pipe(document: Document) -> Call:
        return pipe(document)

    return open_pipe, own_versions()


if __name__ == "__main__":
    serve(start)
