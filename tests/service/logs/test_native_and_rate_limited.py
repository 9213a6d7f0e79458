"""The log: lines that come often, and what C libraries write to stderr without waiting."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from service.logs.rate_limited import RateLimitedWarnings

STARTED = """
import ctypes, os
from service.logs.log_settings import LogSettings
from service.logs.start import start_log
start_log(LogSettings())
libc = ctypes.CDLL(None)
stderr = ctypes.c_void_p.in_dll(libc, "stderr")
"""
LAST_WORDS = {
    "the interpreter": 'ctypes.pythonapi.Py_FatalError(b"no way on")',
    "an assertion": 'libc.__assert_fail(b"no way on", b"a.c", 1, b"f")',
    "a library": 'libc.fputs(b"no way on", stderr); os.abort()',
}
MANY = """
for _ in range(5000):
    libc.fputs(b"Corrupt JPEG data: premature end of data segment\\n", stderr)
os.write(1, b"through")
"""


@pytest.mark.parametrize("whose", LAST_WORDS)
def test_last_words_before_an_abort_are_seen(whose: str) -> None:
    command = [sys.executable, "-c", STARTED + LAST_WORDS[whose]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode < 0
    assert "no way on" in ended.stderr


def test_a_library_does_not_wait_for_the_reader_of_stderr() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTED + MANY], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(7) == b"through"


def test_a_period_has_one_line_and_the_next_one_counts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    times_s = [0.0] * 99 + [9.9, 10.0, 19.9, 20.0]
    seldom = RateLimitedWarnings(logging.getLogger("test"), 10.0, iter(times_s).__next__)
    for number in range(len(times_s)):
        seldom.warn("refused %d", number)
    assert caplog.messages == [
        "refused 0",
        "refused 100 (and 99 more of this kind)",
        "refused 102 (and 1 more of this kind)",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
