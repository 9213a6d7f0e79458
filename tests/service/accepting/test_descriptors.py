"""How many connections the limit of open files lets in."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import psutil
import pytest

_SERVE = (
    "import resource, sys; from service.cli import main\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    "sys.exit(main(['--handler', 'null', '--port', '0', '--max-connections', '300']))"
)
NEEDED = 300 + 256


@pytest.mark.parametrize(("hard", "allowed"), [(NEEDED + 99, NEEDED), (200, 200)])
def test_the_soft_limit_is_raised_as_far_as_connections_need_it(
    start: Callable[..., Any], hard: int, allowed: int
) -> None:
    server = start("-c", _SERVE.format(soft=64, hard=hard))
    server.port()
    process = psutil.Process(server.process.pid)
    assert process.rlimit(resource.RLIMIT_NOFILE) == (allowed, hard)
    told = "--max-connections = 300 needs about 556 descriptors, and the hard limit"
    assert (told in server.log) == (allowed < NEEDED)
    server.process.terminate()
    assert server.wait() == 0
