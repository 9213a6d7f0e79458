"""The clients of docs/clients, in each language, as a reader would build and run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.client import Classification, Client
from tests.interop.compilers import IDL, java_libraries, run, tool
from tests.interop.needs import missing
from tests.interop.python_clients import ThriftpyClient
from tests.interop.scenario import WHOLE_SERVER, call
from tests.serving import TIMEOUT_S

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
CLIENTS = ROOT / "docs" / "clients"
HOST = "127.0.0.1"
GO_LIBRARY = Path("/usr/share/gocode/src/github.com/apache/thrift/lib/go/thrift")
TOP_K = 3


def _python(name: str) -> list[str]:
    return [sys.executable, str(CLIENTS / "python" / name)]


@pytest.fixture(scope="session")
def python() -> list[str]:
    return _python("classify.py")


@pytest.fixture(scope="session")
def python_async() -> list[str]:
    return _python("classify_async.py")


@pytest.fixture(scope="session")
def python_with_idl(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return _built("Python without this project", tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    for name in ("node", "thrift"):
        tool(name)
    packages = CLIENTS / "node" / "node_modules"
    if not packages.is_dir():
        missing("the npm package thrift, in docs/clients/node,")
    folder = tmp_path_factory.mktemp("node")
    (folder / "docs" / "clients" / "node").mkdir(parents=True)
    (folder / "docs" / "clients" / "node" / packages.name).symlink_to(packages)
    return _built("Node", folder, without="npm ")


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    for name in ("javac", "java", "thrift"):
        tool(name)
    java_libraries()
    return _built("Java", tmp_path_factory.mktemp("java"))


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Built with Debian's package of Apache's library, which is no module and needs no network."""
    for name in ("go", "thrift"):
        tool(name)
    if not GO_LIBRARY.is_dir():
        missing("Apache Thrift's library for Go")
    return _built("Go", tmp_path_factory.mktemp("go"))


def _commands(heading: str) -> list[str]:
    """The first commands below a heading of the page."""
    section = PAGE.split(f"{heading}\n")[1]
    block = re.search(r"^```sh\n(.*?)\n```$", section, re.MULTILINE | re.DOTALL)
    assert block
    return block.group(1).splitlines()


def _built(heading: str, folder: Path, without: str | None = None) -> list[str]:
    """Build a client by the page's own commands, in a folder that has the IDL and the clients.

    Args:
        heading: of its section.
        folder: where.
        without: the start of commands that are left out.

    Returns:
        The last of the commands, without the arguments that it has there.
    """
    *commands, last = _commands(f"### {heading}")
    program = last.removesuffix(" 127.0.0.1 8095 photo.jpg")
    assert program != last
    shutil.copytree(IDL.parent, folder / "idl")
    ignored = shutil.ignore_patterns("node_modules", "gen-*")
    shutil.copytree(CLIENTS, folder / "docs" / "clients", ignore=ignored, dirs_exist_ok=True)
    steps = [line for line in commands if without is None or not line.startswith(without)]
    run("sh", "-ec", "\n".join(steps), cwd=folder)
    variables = [line for line in commands if re.match(r"\w+=\$|export ", line)]
    return ["sh", "-c", "\n".join([f"cd {folder}", *variables, f'exec {program} "$@"']), "sh"]


ALL = pytest.mark.parametrize(
    "client", ["python", "python_async", "python_with_idl", "node", "java", "go"]
)
RETRYING = pytest.mark.parametrize("client", ["python_with_idl", "node", "java", "go"])


def started(command: Sequence[str], port: int, *files: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, HOST, str(port), *files],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@contextmanager
def held(port: int, image: bytes) -> Iterator[None]:
    """One image stays in the server; as many as it ever takes find no place beside it."""
    holder, other = ThriftpyClient(port), ThriftpyClient(port)

    def params(words: bytes) -> object:
        return holder.types.InferenceParams(uuid="one", data=words + image)

    holder.send("infer_images", [params(b"hold:")], None)
    call(other, "infer_batch", params(b"held:"))
    try:
        yield
    finally:
        call(other, "infer_batch", params(b"free:"))
        holder.receive("infer_images")
        holder.close()
        other.close()


def test_the_idl_becomes_a_page_for_browsers(tmp_path: Path) -> None:
    tool("thrift")
    shutil.copytree(IDL.parent, tmp_path / "idl")
    run("sh", "-ec", "\n".join(_commands("## Other languages")), cwd=tmp_path)
    page = (tmp_path / "build" / "idl" / "inference.html").read_text(encoding="utf-8")
    assert "Why one image has no result." in page
    assert "When to try again, in milliseconds from now." in page


@ALL
def test_it_prints_the_classes_of_each_image_and_why_one_has_none(
    request: pytest.FixtureRequest,
    client: str,
    port: int,
    image_files: Sequence[str],
    tmp_path: Path,
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    files = [image_files[0], str(bad), *image_files[1:]]
    with started(request.getfixturevalue(client), port, *files) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    with Client(HOST, port) as ours:
        results = zip(files, ours.classify_batch(files, top_k=TOP_K), strict=True)
        expected = [
            f"{file}\t{entry.label}\t{entry.score:.4f}"
            for file, result in results
            if isinstance(result, Classification)
            for entry in result.top_k
        ]
    assert len(expected) == TOP_K * len(image_files)
    assert out.splitlines() == expected, err
    assert f"{bad}: " in err
    assert process.returncode == 1


@RETRYING
def test_a_refused_call_is_tried_again_until_there_is_room(
    request: pytest.FixtureRequest,
    client: str,
    port: int,
    images: Sequence[bytes],
    image_files: Sequence[str],
) -> None:
    command = request.getfixturevalue(client)
    with held(port, images[0]):
        process = started(command, port, *[image_files[0]] * WHOLE_SERVER)
        assert process.stderr
        line = process.stderr.readline()
    with process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert line.startswith("overloaded, trying again in "), line + err
    assert process.returncode == 0, err
    assert len(out.splitlines()) == TOP_K * WHOLE_SERVER


def test_the_client_of_this_project_says_when_it_has_tried_enough(
    python: list[str], port: int, images: Sequence[bytes], image_files: Sequence[str]
) -> None:
    with (
        held(port, images[0]),
        started(python, port, *[image_files[0]] * WHOLE_SERVER) as process,
    ):
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert err.startswith("overloaded, try again in ")
    assert process.returncode == 1
