"""The order of windows."""

from __future__ import annotations

from loadtest.measure.series import interleaved
from loadtest.servers.variants import VARIANTS


def test_repeats_run_forwards_and_backwards_in_turn() -> None:
    variants = [VARIANTS[name] for name in ("baseline", "pipeline", "in-process")]
    order = [(repeat, variant.name[0]) for variant, repeat in interleaved(variants, 3)]
    assert "".join(letter for _, letter in order) == "bpi" + "ipb" + "bpi"
    assert [repeat for repeat, _ in order] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
