"""The colours of variants, which are the same in all charts and reports."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

from loadtest.report.style import BOUND, PALETTE
from loadtest.servers.variants import IN_PROCESS, VARIANTS

_COLOURS = {**dict(zip(VARIANTS, PALETTE, strict=False)), IN_PROCESS: BOUND}


def variant_colours(names: Iterable[str]) -> dict[str, str]:
    """Variant name to colour; peers, and variants with several workers, take what is left."""
    shown = [*dict.fromkeys(names)]
    colours = {name: _COLOURS[name] for name in shown if name in _COLOURS}
    free = cycle([colour for colour in PALETTE if colour not in colours.values()] or PALETTE)
    return {name: colours.get(name) or next(free) for name in shown}
