"""Backends in Python that both runtimes run, the very same classes.

Items are read and written as both allow: `item[key]`, `key in item`.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any


class _Backend:
    """One that keeps its node's settings; `largest` is the size of its batches."""

    def init(self, config: Mapping[str, str], options: object = None) -> None:
        del options
        self.config = {str(key): str(value) for key, value in config.items()}

    def max(self) -> int:
        return int(self.config.get("largest", 1))

    def forward(self, items: Sequence[Any]) -> None:
        for item in items:
            self.run(item)

    def run(self, item: Any) -> None:
        raise NotImplementedError


class Add(_Backend):
    """Adds `term`."""

    def run(self, item: Any) -> None:
        item["result"] = int(item["data"]) + int(self.config.get("term", 1))


class Multiply(_Backend):
    """Multiplies by `factor`, and stays below 10,007."""

    def run(self, item: Any) -> None:
        item["result"] = int(item["data"]) * int(self.config.get("factor", 3)) % 10007


class Note(_Backend):
    """Hands on its data, which it also puts under the key `note`."""

    def run(self, item: Any) -> None:
        item[self.config.get("note", "note")] = item["data"]
        item["result"] = item["data"]


class Combine(_Backend):
    """A number of its data, and of what is under the keys in `keys`, in order."""

    def run(self, item: Any) -> None:
        total = int(item["data"])
        for key in filter(None, self.config.get("keys", "").split("/")):
            total = (total * 31 + int(item[key])) % 10007
        item["result"] = total


class NoResult(_Backend):
    """Gives no result where the data is a multiple of `of`."""

    def run(self, item: Any) -> None:
        if int(item["data"]) % int(self.config.get("of", 2)):
            item["result"] = int(item["data"]) + 1


class Fail(_Backend):
    """Raises a ValueError where the data is a multiple of `of`."""

    def run(self, item: Any) -> None:
        if int(item["data"]) % int(self.config.get("of", 2)) == 0:
            raise ValueError(f"{int(item['data'])} is at fault")
        item["result"] = int(item["data"]) + 1


class Raise(_Backend):
    """Raises the exception that `error` names: one of Python's own, or `OwnError`."""

    def run(self, item: Any) -> None:
        del item
        kind = {"OwnError": OwnError}.get(self.config["error"])
        kind = kind or getattr(builtins, self.config["error"])
        raise kind("of a backend")


class OwnError(Exception):
    """An exception of a class that no runtime knows."""


class BatchSize:
    """The size of its batch; it does not say how large one may be."""

    def forward(self, items: Sequence[Any]) -> None:
        for item in items:
            item["result"] = len(items)


class Settings(_Backend):
    """The settings that it was given, by name."""

    def run(self, item: Any) -> None:
        item["result"] = [f"{key}={value}" for key, value in sorted(self.config.items())]


class Keys(_Backend):
    """The keys of the item that it was given, without those that a runtime adds."""

    def run(self, item: Any) -> None:
        keys = {str(key) for key in item.keys()}  # noqa: SIM118 (no dictionary of Python's)
        item["result"] = ",".join(sorted(keys - set(self.config.get("ignored", "").split("/"))))


BACKENDS = (Add, Multiply, Note, Combine, NoResult, Fail, Raise, BatchSize, Settings, Keys)
