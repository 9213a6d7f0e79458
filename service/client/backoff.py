"""How long to wait before a call is tried again.

Full jitter, as AWS's "Exponential Backoff And Jitter" (Marc Brooker, 2015) recommends it: clients
that were refused together do not come back together.
"""

from __future__ import annotations

import random

_BASE_S = 0.05
_MOST_S = 2.0


def delay_s(attempt: int, retry_after_ms: int = 0) -> float:
    """A random delay whose longest doubles with each attempt.

    Args:
        attempt: 0 for the first retry.
        retry_after_ms: what the server asked for; the delay is added to that.

    Returns:
        Seconds.
    """
    longest_s = min(_MOST_S, _BASE_S * 2 ** min(attempt, 16))
    return retry_after_ms / 1000 + random.uniform(0.0, longest_s)  # noqa: S311 (guards no secret)
