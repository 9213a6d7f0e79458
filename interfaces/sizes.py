"""Numbers of bytes as text: 1 KiB is 2**10 bytes, 1 MiB 2**20, 1 GiB 2**30."""

from __future__ import annotations

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size_text(count: float) -> str:
    """A number of bytes in the unit that suits it, such as "97.8 MiB"."""
    power = 0
    # What would be shown as 1024.0 is 1.0 of the next unit.
    while power < len(_UNITS) - 1 and round(abs(count), 1) >= 1024:
        count, power = count / 1024, power + 1
    return f"{count:.1f} {_UNITS[power]}" if power else f"{count:.0f} bytes"
