"""Clients in C++ and Java, built here with Apache Thrift's compiler and libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.interop.compilers import generate, java_program, run, tool
from tests.interop.needs import missing
from tests.interop.scenario import Report

HERE = Path(__file__).parent
CPP_HEADERS = ("thrift/Thrift.h", "boost/version.hpp")
CPP_INCLUDES = (Path("/usr/include"), Path("/usr/local/include"))


@pytest.fixture(scope="session")
def cpp_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the client in C++."""
    compiler = tool("g++")
    for header in CPP_HEADERS:
        if not any((folder / header).is_file() for folder in CPP_INCLUDES):
            missing(header)
    folder = tmp_path_factory.mktemp("interop-cpp")
    generate("cpp:no_skeleton", folder)
    sources = sorted(map(str, folder.glob("*.cpp")))
    program = str(folder / "client")
    ours = str(HERE / "cpp" / "client.cpp")
    run(compiler, "-O0", "-o", program, f"-I{folder}", ours, *sources, "-lthrift")
    return [program]


@pytest.fixture(scope="session")
def java_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the client in Java."""
    folder = tmp_path_factory.mktemp("interop-java")
    return java_program(HERE / "java" / "InteropClient.java", folder)


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
    lines = run(*command, "127.0.0.1", str(port), transport, *image_files).splitlines()
    report = dict(line.split("=", 1) for line in lines)
    assert _comparable(report) == _comparable(expected)
