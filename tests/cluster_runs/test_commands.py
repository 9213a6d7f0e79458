"""`chaos` and `scaling` through the real command, as short as they can be.

Whether throughput is back in time, and grows in proportion, is left to runs on a quiet machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.needs import needs_ray
from tests.cluster_runs.chaos import CPUS_PER_NODE
from tests.cluster_runs.command_line import main
from tests.commands import run_here
from tests.deploy.needs import needs_haproxy
from tests.ports import free_port
from tests.robustness.checking_clients import RIGHT

pytestmark = needs_ray

TIMED = ("throughput", "again")


def kept(folder: Path, *words: object) -> dict[str, Any]:
    """The record of a run, all of whose promises but those of speed are kept."""
    where = ["--output_dir", str(folder), "--port", str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster_runs", *map(str, words), *where],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
    )
    assert done.returncode in (0, 1), done.stderr
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    broken = [c for c in run["checks"] if not c["met"] and not any(t in c["name"] for t in TIMED)]
    assert not broken, broken
    assert (folder / "report.md").is_file()
    return run


@needs_haproxy
def test_chaos_kills_a_replica_and_drains_a_front_end(tmp_path: Path) -> None:
    run = kept(
        tmp_path / "out",
        *("chaos", "--phases", "killed-replica,drained-front-end", "--duration_s", 2),
        *("--nodes", 2, "--replicas", CPUS_PER_NODE, "--clients", 4),
    )
    names = [phase["name"] for phase in run["results"]["phases"]]
    assert names == ["killed-replica", "drained-front-end"]
    assert all(phase["outcomes"][RIGHT] > 0 for phase in run["results"]["phases"])


def test_chaos_says_that_it_needs_haproxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run_here(main, "chaos", "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert "chaos needs HAProxy: apt-get install haproxy" in done.stderr


def test_scaling_measures_each_count(tmp_path: Path) -> None:
    run = kept(
        tmp_path / "out",
        *("scaling", "--counts", "1,2", "--rounds", 1, "--duration_s", 2, "--nodes", 1),
    )
    assert [one["replicas"] for one in run["results"]["scaling"]] == [1, 2]
    assert all(one["images_per_s"] > 0 for one in run["results"]["scaling"])
