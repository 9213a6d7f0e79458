"""What a test does where a compiler or a library that it needs is not installed."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

REQUIRE = "THRIFTPIPE_REQUIRE_INTEROP"


def missing(what: str) -> NoReturn:
    """Skip the test; under `make test-interop`, which installs everything, fail it."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{what} is missing, and {REQUIRE}=1 allows no skipped test")
    pytest.skip(f"{what} is missing; `make test-interop` installs it")
