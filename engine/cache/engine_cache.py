"""What an engine prepared from a model, kept in a file and used again only if it still fits.

The file is one line that names the format, one line of JSON (the key, and the payload's SHA-256),
and then the payload as the provider wrote it, encrypted where the file's name ends in
".encrypted". Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from engine.cache.atomic_file import write_atomically
from engine.cache.bounded_file import UnreadableFileError, open_regular, why_no_folder
from engine.cache.checksummed_file import UnusableFileError, why_not_kept
from engine.cache.encrypted_file import WrongKeyError, read_key, seal, unseal
from engine.errors import EngineError

_MAGIC = b"thriftpipe engine cache 1\n"
_MAX_HEADER_BYTES = 65_536
_ENCRYPTED_SUFFIX = ".encrypted"

_logger = logging.getLogger(__name__)


def load_or_build(
    path: Path,
    key: Mapping[str, str],
    build: Callable[[], bytes],
    *,
    secret_file: Path | None = None,
) -> bytes:
    """The payload of the cache file, or a new one, which then is kept there.

    Args:
        path: the cache file; it is encrypted if its name ends in ".encrypted".
        key: what the payload depends on; it is used again only if this is equal.
        build: makes a new payload.
        secret_file: what to encrypt with, or None for the environment: see
            `engine.cache.encrypted_file.read_key`.

    Raises:
        EngineError: its folder does not exist; or the file is encrypted, and the secret is missing
            or another one.
    """
    secret = read_key(secret_file) if is_encrypted(path) else None
    # Before hours of work that could not be kept.
    check_folder(path, "engine cache")
    try:
        payload = _read(path, key)
    except FileNotFoundError:
        _logger.info("building cache %s", path)
    except UnusableFileError as reason:
        _logger.info("building cache %s again: %s", path, reason)
    else:
        payload = payload if secret is None else _opened(path, payload, secret, key)
        _logger.info("using cache %s", path)
        return payload
    payload = build()
    stored = payload if secret is None else seal(payload, secret, _canonical(key))
    header = {"key": dict(key), "payload_sha256": hashlib.sha256(stored).hexdigest()}
    try:
        write_atomically(
            path, b"".join([_MAGIC, json.dumps(header, sort_keys=True).encode(), b"\n", stored])
        )
    except OSError as error:
        if (why := why_not_kept(path, error)) is None:
            raise EngineError(f"cannot write the engine cache {path}: {error.strerror}") from error
        _logger.warning(why)
    return payload


def is_encrypted(path: Path) -> bool:
    """Whether the file of that name is encrypted."""
    return path.suffix == _ENCRYPTED_SUFFIX


def check_folder(path: Path, kind: str) -> None:
    """Raise EngineError where the folder of a cache of some kind is missing."""
    if reason := why_no_folder(path.parent):
        raise EngineError(f"cannot write the {kind} {path}: {reason}; make the folder")


def _opened(path: Path, stored: bytes, secret: bytes, key: Mapping[str, str]) -> bytes:
    """The payload of an encrypted file that is whole and fits.

    Another secret is an error and no reason to make the file again: others who share the file
    would lose it, and a mistyped secret would go unnoticed.
    """
    try:
        return unseal(stored, secret, _canonical(key))
    except WrongKeyError as error:
        raise EngineError(
            f"cannot open the engine cache {path}: {error}; give the key that it was written "
            f"with, or delete the file"
        ) from error


def _canonical(key: Mapping[str, str]) -> bytes:
    return json.dumps(dict(key), sort_keys=True).encode()


def _read(path: Path, key: Mapping[str, str]) -> bytes:
    """The stored payload of a file that is whole and was made for this key."""
    try:
        with open_regular(path) as file:
            _check_owner(os.fstat(file.fileno()))
            stored_key, payload_sha256 = _read_header(file)
            if differing := _difference(stored_key, key):
                raise UnusableFileError(f"it was made for another {differing}")
            payload = file.read()
    except UnreadableFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise UnusableFileError(str(error)) from error
    except OSError as error:
        raise UnusableFileError(f"it cannot be read ({error.strerror})") from error
    if hashlib.sha256(payload).hexdigest() != payload_sha256:
        raise UnusableFileError("its content is damaged")
    return payload


def _check_owner(status: os.stat_result) -> None:
    """What lies in the file is run: only this user and root may have written it."""
    if status.st_uid not in (os.geteuid(), 0):
        raise UnusableFileError("it belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnusableFileError("other users may write to it")


def _read_header(file: BinaryIO) -> tuple[dict[str, str], str]:
    """The key, and the SHA-256 of the payload."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise UnusableFileError("it is not an engine cache of this version")
    try:
        header = json.loads(file.readline(_MAX_HEADER_BYTES))
        return dict(header["key"]), str(header["payload_sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnusableFileError("its header is damaged") from error


def _difference(stored: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    names = {**wanted, **stored}
    return ", ".join(name for name in names if stored.get(name) != wanted.get(name))
