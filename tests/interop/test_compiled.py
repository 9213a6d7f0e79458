"""Clients in C++ and Java, built here with Apache Thrift's compiler and libraries."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import idl
from tests.interop.needs import missing
from tests.interop.scenario import Report
from tests.serving import TIMEOUT_S

HERE = Path(__file__).parent
IDL = Path(idl.__file__).parent / "inference.thrift"
CPP_HEADERS = ("thrift/Thrift.h", "boost/version.hpp")
CPP_INCLUDES = (Path("/usr/include"), Path("/usr/local/include"))
JARS = Path("/usr/share/java")
# Apache's library, what it logs to, the annotation in generated code, and a log that says nothing.
JAR_NAMES = (
    "thrift.jar",
    "slf4j-api.jar",
    "slf4j-nop.jar",
    "geronimo-annotation-1.3-spec.jar",
)


def _run(*command: str) -> str:
    ended = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode == 0, f"{' '.join(command)}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(name)
    return path


def _generate(language: str, folder: Path) -> list[str]:
    """Let Thrift's compiler write sources into `folder`; their paths."""
    _run(_tool("thrift"), "--gen", language, "-out", str(folder), str(IDL))
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="session")
def cpp_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the client in C++."""
    compiler = _tool("g++")
    for header in CPP_HEADERS:
        if not any((folder / header).is_file() for folder in CPP_INCLUDES):
            missing(header)
    folder = tmp_path_factory.mktemp("interop-cpp")
    sources = [path for path in _generate("cpp:no_skeleton", folder) if path.endswith(".cpp")]
    program = str(folder / "client")
    ours = str(HERE / "cpp" / "client.cpp")
    _run(compiler, "-O0", "-o", program, f"-I{folder}", ours, *sources, "-lthrift")
    return [program]


@pytest.fixture(scope="session")
def java_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the client in Java."""
    compiler, runtime = _tool("javac"), _tool("java")
    for name in JAR_NAMES:
        if not (JARS / name).is_file():
            missing(str(JARS / name))
    class_path = ":".join(str(JARS / name) for name in JAR_NAMES)
    folder = tmp_path_factory.mktemp("interop-java")
    sources = _generate("java", folder)
    ours = str(HERE / "java" / "InteropClient.java")
    built = tmp_path_factory.mktemp("interop-classes")
    _run(compiler, "-proc:none", "-nowarn", "-cp", class_path, "-d", str(built), ours, *sources)
    return [runtime, "-cp", f"{class_path}:{built}", "InteropClient"]


def _comparable(report: Report) -> dict[str, str | float]:
    """Scores as numbers: each language writes them in its own way."""
    return {
        name: float(value) if name.endswith(".score") else value for name, value in report.items()
    }


@pytest.mark.parametrize("transport", ["framed", "buffered"])
@pytest.mark.parametrize("client", ["cpp_client", "java_client"])
def test_the_compiled_client_gets_what_thriftpy2_gets(
    request: pytest.FixtureRequest,
    client: str,
    transport: str,
    port: int,
    image_files: Sequence[str],
    expected: Report,
) -> None:
    command = request.getfixturevalue(client)
    lines = _run(*command, "127.0.0.1", str(port), transport, *image_files).splitlines()
    report = dict(line.split("=", 1) for line in lines)
    assert _comparable(report) == _comparable(expected)
