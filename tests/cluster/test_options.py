"""What `--cluster` refuses, and what a server without it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.serving import refusal


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--replicas", "2"], "--replicas says how the handler runs on a cluster; give --cluster"),
        (["--gpus-per-replica", "1"], "--gpus-per-replica says how the handler runs"),
        (["--cluster", "local", "--replicas", "2", "--max-replicas", "3"], "give either"),
        (["--cluster", "local", "--min-replicas", "2"], "--min-replicas goes with --max-replicas"),
        (
            ["--cluster", "local", "--min-replicas", "3", "--max-replicas", "2"],
            "--min-replicas 3 is above --max-replicas 2",
        ),
        (["--scale-down-delay-s", "5"], "--scale-down-delay-s says how the handler runs"),
        (
            ["--cluster", "local", "--replicas", "2", "--scale-down-delay-s", "5"],
            "--scale-down-delay-s goes with --max-replicas",
        ),
        (["--cluster", "local", "--workers", "2"], "use --replicas instead"),
        (["--cluster", "local", "--devices", "0"], "use --gpus-per-replica instead"),
    ],
)
def test_options_that_contradict_each_other_are_refused(words: list[str], line: str) -> None:
    assert line in refusal("--handler", "pipeline", *words)


@pytest.mark.parametrize("words", [["--replicas", "0"], ["--gpus-per-replica", "-1"]])
def test_numbers_out_of_bounds_are_refused(words: list[str]) -> None:
    run = _run("from service.cli import main; main(['--cluster', 'local', *sys.argv[1:]])", *words)
    assert run.returncode == 2
    assert words[0] in run.stderr


def test_without_ray_the_line_says_what_to_install() -> None:
    run = _run(
        "sys.modules['ray'] = None\n"
        "from service.cli import main\n"
        "sys.exit(main(['--handler', 'null', '--port', '0', '--cluster', 'local']))"
    )
    assert run.returncode == 2
    assert run.stderr.strip() == (
        "error: --cluster needs the package 'ray': pip install 'thriftpipe[cluster]', on a Python "
        "that Ray has packages for (3.10 to 3.14)"
    )


def test_nothing_of_ray_is_loaded_without_a_cluster() -> None:
    """Not even by the front end's own modules."""
    run = _run(
        "import cluster.command, cluster.front_end, service.cli, service.worker\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert run.returncode == 0, run.stderr


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys\n{code}", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)
