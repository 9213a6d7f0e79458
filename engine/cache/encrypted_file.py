"""Sealing what an engine prepared, so that a stolen disk does not give the model away.

AES-256 in Galois/Counter Mode, from the package cryptography: a change of one bit in the file, or
in the header that goes with it, makes it unreadable.
"""

from __future__ import annotations

import os
import stat
from importlib.util import find_spec
from pathlib import Path

from engine.cache.bounded_file import UnreadableFileError, read_bounded
from engine.errors import EngineError, MissingOnHostError

ENVIRONMENT_VARIABLE = "THRIFTPIPE_CACHE_KEY"

_KEY_BYTES = 32
_MAX_KEY_FILE_BYTES = 4096
_KEY_HINT = f"make one with: openssl rand -hex {_KEY_BYTES}"
# The size that AES-GCM is made for; any other is hashed first.
_NONCE_BYTES = 12
_TAG_BYTES = 16


class WrongKeyError(Exception):
    """The key does not open the content, or one of the two was changed."""


def read_key(key_file: Path | None) -> bytes:
    """The key to seal and open with.

    Args:
        key_file: a file with 64 hexadecimal digits that only its owner may read, or None for
            the environment variable THRIFTPIPE_CACHE_KEY.

    Returns:
        32 bytes.

    Raises:
        EngineError: there is no key, others may read its file, or it is not one.
        MissingOnHostError: the package is missing that encrypts.
    """
    require_encryption()
    return key_in(key_file)


def key_in(key_file: Path | None) -> bytes:
    """As `read_key`, also where the package is missing that encrypts."""
    if key_file is None:
        text, where = os.environ.get(ENVIRONMENT_VARIABLE, ""), ENVIRONMENT_VARIABLE
        if not text:
            raise EngineError(
                f"an encrypted engine cache needs a key: name its file, or put it into "
                f"{ENVIRONMENT_VARIABLE}; {_KEY_HINT}"
            )
    else:
        text, where = _read_private(key_file), str(key_file)
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        # The text itself stays out of the message, and so out of logs.
        raise EngineError(
            f"the key in {where} is not {2 * _KEY_BYTES} hexadecimal digits "
            f"(it has {len(text.strip())} characters); {_KEY_HINT}"
        )
    return key


def seal(content: bytes, key: bytes, header: bytes) -> bytes:
    """Encrypt content, and bind it to a header that stays readable.

    Args:
        content: what is to be kept secret.
        key: 32 bytes.
        header: what has to be the same when it is opened.

    Returns:
        12 random bytes, then the encrypted content, then 16 bytes that authenticate both.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, header)


def unseal(sealed: bytes, key: bytes, header: bytes) -> bytes:
    """The content that `seal` was given.

    Raises:
        WrongKeyError: another key, another header, or changed bytes.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise WrongKeyError("it is shorter than anything that was encrypted")
    nonce, encrypted = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, encrypted, header)
    except InvalidTag as error:
        raise WrongKeyError("the key does not open it") from error


def _read_private(path: Path) -> str:
    try:
        text = read_bounded(path, _MAX_KEY_FILE_BYTES).decode("ascii")
        mode = path.stat().st_mode
    except UnreadableFileError as error:
        raise EngineError(f"cannot read the key file {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise EngineError(f"the key file {path} is not text; {_KEY_HINT}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EngineError(f"others may read the key file {path}; run: chmod 600 {path}")
    return text


def require_encryption() -> None:
    """Raise MissingOnHostError where the package is missing that encrypts."""
    if find_spec("cryptography") is None:
        raise MissingOnHostError(
            "an encrypted engine cache needs the package cryptography; install it with: "
            "pip install 'thriftpipe[encryption]'"
        )
