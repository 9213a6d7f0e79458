"""Imports locust, which patches the sockets of this process: before all else that uses them.

While gevent patches, it asks two dozen times which plugins are installed, and each time Python
reads what every package says of itself: a fifth of a client process's start. Here it does so once.
"""

from __future__ import annotations

from importlib import metadata

from interfaces.garbage import none_while_importing

_entry_points = metadata.entry_points
_all = _entry_points()
metadata.entry_points = lambda **wanted: _all.select(**wanted)  # type: ignore[assignment]
try:
    with none_while_importing():
        import locust  # noqa: F401
finally:
    metadata.entry_points = _entry_points
