"""The distribution without its extras: the client works with thriftpy2 alone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import TIMEOUT_S, service_here

ROOT = Path(__file__).parents[1]
SOURCES = ("setup.cfg", "pyproject.toml", "README.md")
# thriftpy2, and what it needs.
PACKAGES = ("thriftpy2", "ply", "ijson")
_ENVIRONMENT = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of an environment with this tree's wheel and thriftpy2, and nothing else."""
    folder = tmp_path_factory.mktemp("client-alone")
    source = folder / "source"
    # A copy: building leaves files beside the sources.
    for package in ROOT.glob("*/__init__.py"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package.parent, source / package.parent.name, ignore=ignored)
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, source]
    # pip takes a checkout that it runs in for what is installed.
    subprocess.run(build, check=True, cwd=folder, env=_ENVIRONMENT)
    (wheel,) = folder.glob("*.whl")
    home = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = str(home / "bin" / "python")
    packages = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(home)}))
    # As pip does, but for the scripts, which no test here runs.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (packages / name).symlink_to(Path(spec.origin).parent)
    return python


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with service_here("--handler", "null") as port:
        yield port


def run(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        cwd="/",
        env=_ENVIRONMENT,
        timeout=TIMEOUT_S,
        check=False,
    )


PROGRAM = """
import asyncio, io, sys
from importlib.metadata import requires
import thriftpipe
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"service", "thriftpy2"}, loaded
from thriftpipe import AsyncClient, Client
import service.client
assert set(thriftpipe.__all__) == set(service.client.__all__)

port = int(sys.argv[1])
with Client(port=port) as client:
    print(client.classify(b"x", top_k=2000).label, len(client.classify(b"x", top_k=2000).top_k))

async def ask():
    async with AsyncClient(port=port) as client:
        return await asyncio.gather(*(client.classify(io.BytesIO(b"x")) for _ in range(40)))

print({result.label for result in asyncio.run(ask())})
print([line for line in requires("thriftpipe") if "extra ==" not in line])
for name in ("numpy", "torch", "cv2", "PIL"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is there")
"""


def test_it_classifies_with_thriftpy2_alone(interpreter: str, port: int) -> None:
    done = run(interpreter, "-c", PROGRAM, str(port))
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "tench 1000",
        "{'tench'}",
        "['thriftpy2<0.8,>=0.7']",
    ]


def test_its_command_line_does(interpreter: str, port: int) -> None:
    command = (interpreter, "-m", "service.client", "classify", "-", "--port", str(port))
    done = run(*command, text="x")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[2] == "tench"


@pytest.mark.parametrize(
    ("program", "extras"),
    [
        (("service", "--handler", "baseline"), "server"),
        (("service", "--handler", "null", "--port", "0", "--workers", "2"), "server"),
        (("pipeline", "operators"), "server"),
        (("pipeline.upper_bound", "--help"), "server"),
        (("loadtest", "compare"), "server,bench"),
        (("scaling", "plan"), "server,bench,scaling"),
        (("thriftpipe", "serve"), "cli"),
        (("thriftpipe.torchpipe", "program.py"), "server"),
        (("thriftpipe.trace", "a.toml", "photos", "--output", "a.html"), "server,bench"),
        (("engine.zoo", "list"), "server"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_program_of_the_server_says_what_to_install(
    interpreter: str, program: tuple[str, ...], extras: str
) -> None:
    done = run(interpreter, "-m", *program)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the package ")
    assert line.endswith(f" is not installed: pip install 'thriftpipe[{extras}]'")
