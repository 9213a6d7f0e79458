"""What a test does where Ray is not installed."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

REQUIRE = "THRIFTPIPE_REQUIRE_CLUSTER"

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None and os.environ.get(REQUIRE) != "1",
    reason="Ray is not installed; `make test-cluster` installs it",
)
"""Skips a test where Ray is missing; under `make test-cluster`, which installs it, it fails."""
