"""What a test does where HAProxy is not installed."""

from __future__ import annotations

import pytest

from tests.deploy.haproxy import is_installed

needs_haproxy = pytest.mark.skipif(not is_installed(), reason="Debian's package haproxy has it")
