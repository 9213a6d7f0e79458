"""Locust's own command with our users: headless with its report, and its web page in a browser."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest.errors import LoadTestError
from loadtest.load.rpc import address_of
from loadtest.servers.server_process import ServerProcess
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
LOCUSTFILE = ROOT / "loadtest" / "locustfile.py"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_OWN_FILE = """
from locust import constant_throughput
from loadtest import locustfile

class Once(locustfile.ClassifyUser):
    host = "127.0.0.1:{there}"
    # A second request would come after a thousand seconds.
    wait_time = constant_throughput(0.001)

class Elsewhere(locustfile.ClassifyUser):
    host = "thrift://127.0.0.1:{absent}"

class Nowhere(locustfile.ClassifyUser):
    host = "http://127.0.0.1"
"""


@contextmanager
def _locust(folder: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Locust's command in an empty folder; killed at the end."""
    command = [sys.executable, "-m", "locust", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _headless(folder: Path, *words: object) -> tuple[int, str]:
    with _locust(folder, "--headless", "--stop-timeout", 5, *words) as process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output


def _statistics(page: Path) -> list[dict[str, Any]]:
    """The statistics of requests in Locust's report."""
    text = html.unescape(page.read_text())
    found = re.search(
        r"window\.templateArgs\s*=\s*(\{.*?\})\s*(?:;|\n|window|</script>)", text, re.S
    )
    assert found is not None
    arguments: dict[str, Any] = json.loads(found[1])
    requests: list[dict[str, Any]] = arguments["requests_statistics"]
    return requests


def test_headless_users_write_the_report_with_their_requests(
    null_server: tuple[int, ServerProcess], port: int, few_photographs: Path, tmp_path: Path
) -> None:
    """A file of one's own with users of two servers, one of which is absent, and of none."""
    (tmp_path / "own.py").write_text(_OWN_FILE.format(there=null_server[0], absent=port))
    code, output = _headless(
        tmp_path,
        *("-f", "own.py", "--img-dir", few_photographs, "--request-batch", 2),
        *("-u", 3, "-r", 3, "-t", "1s", "--html", "report.html"),
    )
    assert code == 1, output  # Locust's own code for failures
    assert "TTransportException" in output
    assert "Traceback" not in output
    assert "--host must be HOST, HOST:PORT" in (tmp_path / "report.html").read_text()
    (entry, _) = _statistics(tmp_path / "report.html")
    assert (entry["name"], entry["method"]) == ("infer_images", "thrift")
    assert entry["num_failures"] > 0
    # The user that is answered paces itself.
    assert entry["num_requests"] - entry["num_failures"] == 1


def test_a_wrong_command_line_ends_before_anything_runs(tmp_path: Path) -> None:
    words = ("--host", "http://127.0.0.1:8095", "-t", "1s")
    code, output = _headless(tmp_path, "-f", LOCUSTFILE, *words)
    assert code == 2
    assert "--host must be HOST, HOST:PORT or thrift://HOST:PORT, got 'http://" in output


@pytest.mark.parametrize("text", ["h:8095", "thrift://h:8095", "h", "thrift://h/"])
def test_a_host_has_a_port_or_the_usual_one(text: str) -> None:
    assert address_of(text) == ("h", 8095)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--host must be HOST"),
        ("h:http", "the port of --host must be 1 to 65535, got 'http'"),
        ("h:70000", "the port of --host"),
        ("h/a", "--host must be"),
        ("ftp://h", "--host must be"),
    ],
)
def test_what_is_no_host_is_told(text: str, message: str) -> None:
    with pytest.raises(LoadTestError, match=message):
        address_of(text)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; Debian's package is `chromium`")
def test_the_web_page_shows_the_requests(
    null_server: tuple[int, ServerProcess], few_photographs: Path, tmp_path: Path
) -> None:
    port, _ = null_server
    web_port = free_port()
    with _locust(
        tmp_path,
        *("-f", LOCUSTFILE, "--host", f"127.0.0.1:{port}", "--img-dir", few_photographs),
        *("--web-host", "127.0.0.1", "--web-port", web_port, "--autostart", "-u", 2, "-r", 2),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "All users spawned" in line:
                break
        page = _browsed(f"http://127.0.0.1:{web_port}/", tmp_path)
    assert "infer_batch" in page
    assert f"127.0.0.1:{port}" in page


def _browsed(address: str, folder: Path) -> str:
    """The page as a browser has it when its scripts have run for some seconds of its own time."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"),
            *("--enable-logging=stderr", "--virtual-time-budget=6000", "--dump-dom", address),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    errors = [line for line in done.stderr.splitlines() if ":ERROR:CONSOLE" in line]
    assert not errors
    return done.stdout
