"""`--backends FILE.py`: a user's own backends and filters, registered before a graph is read."""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Lock

from engine.cache.bounded_file import why_no_file
from interfaces.error_text import in_one_line
from pipeline.errors import PipelineConfigError

_MOST_BYTES = 2**20
_loaded: set[Path] = set()
_loading = Lock()


def load_backends(path: str) -> None:
    """Execute a Python file, which calls `register_backend` and `register_filter`.

    A process executes a file once; asking for it again does nothing. The file is the operator's
    own code and runs with all rights of the process.

    Args:
        path: the file, named `*.py`.

    Raises:
        PipelineConfigError: there is no such file, it is larger than 1 MiB, or it raises; the
            message has the line.
    """
    file = Path(os.path.realpath(path))
    with _loading:
        if file in _loaded:
            return
        _check(path, file)
        _execute(path, file)
        _loaded.add(file)


def _check(path: str, file: Path) -> None:
    if file.suffix != ".py":
        raise PipelineConfigError(f"--backends takes a Python file, FILE.py; got {path}")
    if reason := why_no_file(Path(path)):
        raise PipelineConfigError(f"--backends: {reason}")
    if (size_bytes := file.stat().st_size) > _MOST_BYTES:
        raise PipelineConfigError(
            f"--backends: {path} has {size_bytes} bytes, more than {_MOST_BYTES}: let a small file "
            "import the rest"
        )


def _execute(path: str, file: Path) -> None:
    name = f"backends_of_{file.stem}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PipelineConfigError(f"--backends: {path} cannot be read as Python")
    module = module_from_spec(spec)
    # Dataclasses look their module up while it is executed.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PipelineConfigError(
            f"--backends: {path}, line {_line(error, file)}: {in_one_line(error)}"
        ) from error


def _line(error: BaseException, file: Path) -> int:
    """The line of the file at which it went wrong, whatever code raised in the end."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno or 1
    line, traceback = 1, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(file):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
