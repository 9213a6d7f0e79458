"""What a worker tells its supervisor of itself for `stats` and for the HTTP endpoint, as bytes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from struct import Struct
from typing import Any

from thriftpy2.transport import TCyMemoryBuffer

from idl import inference
from interfaces.stats import Stats
from interfaces.structs import from_struct, to_struct
from service.wire.binary_protocol import BinaryProtocol

# Of the three parts of a report.
_SIZES = Struct("<3Q")


@dataclass(frozen=True)
class Report:
    """A worker's report.

    Attributes:
        own: what this process has done and does.
        elsewhere: what the engine process has done for all workers; None where there is none.
        info: the IDL's ServerInfo; None where it was not asked for.
    """

    own: Stats
    elsewhere: Stats | None
    info: Any


def encode_stats(stats: Stats) -> bytes:
    """The numbers as the IDL's struct in Thrift's binary encoding."""
    return _encoded(to_struct(stats, inference))


def decode_stats(data: bytes) -> Stats:
    """What `encode_stats` was given."""
    return from_struct(Stats, _decoded(inference.Stats, data))


def report_file(report: Report) -> int:
    """A descriptor of a file in memory with the report; to be closed."""
    elsewhere = b"" if report.elsewhere is None else encode_stats(report.elsewhere)
    info = b"" if report.info is None else _encoded(report.info)
    parts = encode_stats(report.own), info, elsewhere
    return file_with(_SIZES.pack(*map(len, parts)) + b"".join(parts))


def read_report(fd: int) -> Report:
    """The report in that file, which is closed."""
    content = io.BytesIO(content_of(fd))
    own, info, elsewhere = map(content.read, _SIZES.unpack(content.read(_SIZES.size)))
    return Report(
        decode_stats(own),
        decode_stats(elsewhere) if elsewhere else None,
        _decoded(inference.ServerInfo, info) if info else None,
    )


def file_with(data: bytes) -> int:
    """A descriptor of a file in memory that a message can carry, however long it is."""
    fd = os.memfd_create("thriftpipe-stats", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
    except BaseException:
        os.close(fd)
        raise
    return fd


def content_of(fd: int) -> bytes:
    """What is in such a file, which is closed."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read()


def _encoded(struct: Any) -> bytes:
    buffer = TCyMemoryBuffer()
    BinaryProtocol(buffer).write_struct(struct)
    encoded: bytes = buffer.getvalue()
    return encoded


def _decoded(kind: type[Any], data: bytes) -> Any:
    buffer = TCyMemoryBuffer()
    buffer.write(data)
    struct = kind()
    BinaryProtocol(buffer).read_struct(struct)
    return struct
