"""Compilers and their libraries, and what the Thrift compiler makes for them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import idl
from tests.interop.needs import missing
from tests.serving import TIMEOUT_S

IDL = Path(idl.__file__).parent / "inference.thrift"
_JARS = Path("/usr/share/java")
# Apache's library, what it logs to, the annotation in generated code, and a log that says nothing.
_JAR_NAMES = (
    "thrift.jar",
    "slf4j-api.jar",
    "slf4j-nop.jar",
    "geronimo-annotation-1.3-spec.jar",
)


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a command prints; it has to end well."""
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
        cwd=cwd,
        env=env,
    )
    assert ended.returncode == 0, f"{' '.join(command)}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def tool(name: str) -> str:
    """The path of a program; the test is skipped without it."""
    path = shutil.which(name)
    if path is None:
        missing(name)
    return path


def generate(language: str, folder: Path) -> None:
    """Let Thrift's compiler write sources into `folder`."""
    folder.mkdir(exist_ok=True)
    run(tool("thrift"), "--gen", language, "-out", str(folder), str(IDL))


def java_libraries() -> str:
    """The class path of Apache's library and what it needs; the test is skipped without them."""
    for name in _JAR_NAMES:
        if not (_JARS / name).is_file():
            missing(str(_JARS / name))
    return ":".join(str(_JARS / name) for name in _JAR_NAMES)


def java_program(source: Path, folder: Path) -> list[str]:
    """The command of a program in Java, which is compiled with the stubs of the IDL."""
    compiler, runtime = tool("javac"), tool("java")
    class_path = java_libraries()
    generate("java", folder / "stubs")
    stubs = sorted(map(str, (folder / "stubs").rglob("*.java")))
    built = str(folder / "classes")
    options = ("-proc:none", "-nowarn", "-cp", class_path, "-d", built)
    run(compiler, *options, str(source), *stubs)
    return [runtime, "-cp", f"{class_path}:{built}", source.stem]
