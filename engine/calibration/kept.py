"""What a measurement has found, kept in the cache folder: the next start measures nothing."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from engine.cache.checksummed_file import UnusableFileError, checksum_file, keep, read_kept
from engine.cache.folders import cache_folder, make_private_folder
from engine.calibration.measurement import CannotMeasureError, Open, Verdict, measure
from engine.interface import Engine
from interfaces.error_text import what_it_says

# Raise it when a measurement decides in another way.
_VERSION = "1"
_MAX_KEPT_BYTES = 65_536
# After so many starts whose measurement failed, on a busy or slow machine, no start measures.
_ATTEMPTS = 3

_logger = logging.getLogger(__name__)


def kept_or_measured(
    asked: Open, key: Mapping[str, str], load: Callable[[int, int], Engine]
) -> Verdict:
    """What suits the machine, kept from another start or measured now.

    Of several processes that ask the same at the same time, such as the workers of a server, one
    measures and the others wait: all of them go on with one answer.

    Args:
        asked: what is to be found out.
        key: all that it depends on: model, engine, precision, CPU, versions.
        load: as in `measure`.

    Raises:
        CannotMeasureError: why it is not known.
    """
    key = {"version": _VERSION, "asked": str(asked), **key}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / f"calibration-{digest[:16]}.json"
    with _turn(path) as turn:
        kept: Verdict | _InVain | None = None
        try:
            kept = _read(path, asked, key)
        except FileNotFoundError:
            pass
        except UnusableFileError as damage:
            _logger.warning("measuring batches again: %s cannot be used: %s", path, damage)
        if isinstance(kept, Verdict):
            return kept
        attempts = kept.attempts if kept else 0
        if kept and turn.waited:
            raise CannotMeasureError(kept.why_not)
        if kept and attempts >= _ATTEMPTS:
            raise CannotMeasureError(f"{kept.why_not}, the last of {attempts} attempts")
        # Known before time is spent on what could not be kept.
        if turn.why_not_kept:
            raise CannotMeasureError(turn.why_not_kept)
        return _measured_and_kept(asked, key, load, path, attempts)


def _measured_and_kept(
    asked: Open,
    key: Mapping[str, str],
    load: Callable[[int, int], Engine],
    path: Path,
    attempts: int,
) -> Verdict:
    _logger.info("measuring which batches suit this machine (once; --calibrate off leaves it out)")
    today = datetime.datetime.now().astimezone().date()
    try:
        found = measure(asked, load)
    except CannotMeasureError as error:
        in_vain = _InVain(f"{error}, on {today}", attempts + 1)
        keep(path, json.dumps({"key": key, **asdict(in_vain)}).encode())
        raise CannotMeasureError(in_vain.why_not) from None
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, Exception):
            raise CannotMeasureError(what_it_says(error)) from error
        raise
    found = replace(found, reason=f"{found.reason}, measured here on {today}")
    keep(path, json.dumps({"key": key, **asdict(found)}).encode())
    return found


@dataclass(frozen=True)
class _InVain:
    """Why there is no verdict, and how many starts have tried to find one."""

    why_not: str
    attempts: int


def _read(path: Path, asked: Open, key: Mapping[str, str]) -> Verdict | _InVain:
    if path.is_file() and path.stat().st_size == 0 and not checksum_file(path).exists():
        # Only reserved, by this process or by one that was killed.
        raise FileNotFoundError(str(path))
    content = read_kept(path, _MAX_KEPT_BYTES)
    try:
        kept = json.loads(content)
        if kept.pop("key") != key:
            raise UnusableFileError("it was measured for something else")
        if "attempts" in kept:
            return _InVain(str(kept["why_not"]), int(kept["attempts"]))
        found = Verdict(**kept)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise UnusableFileError("it is no measurement") from error
    if found.batch not in asked.sizes or found.contexts not in asked.contexts:
        raise UnusableFileError("it has other batches or instances than were to be measured")
    return found


@dataclass(frozen=True)
class _Turn:
    """A time in which no other process measures the same.

    Attributes:
        waited: whether another one had to be waited for.
        why_not_kept: why nothing can be kept; "" where it can. Then nobody waits, either.
    """

    waited: bool = False
    why_not_kept: str = ""


@contextmanager
def _turn(path: Path) -> Iterator[_Turn]:
    """The turn of this process; what is kept there is an empty file until the first has ended."""
    with ExitStack() as stack:
        try:
            make_private_folder(path.parent)
            file = stack.enter_context(path.open("a"))
        except OSError as error:
            reason = f"{path.parent} cannot be written ({error.strerror or error})"
            hint = "so each start would measure again; THRIFTPIPE_CACHE_DIR names another folder"
            yield _Turn(why_not_kept=f"{reason}, {hint}")
            return
        yield _Turn(waited=_waited_for_lock(file))


def _waited_for_lock(file: TextIO) -> bool:
    """Lock a file until it is closed; whether another process had it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    except OSError:
        # A file system without locks: every process measures for itself.
        return False
    return False
