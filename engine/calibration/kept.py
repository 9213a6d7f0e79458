"""What a measurement has found, kept in the cache folder: later starts measure nothing."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from engine.cache.atomic_file import write_atomically
from engine.cache.bounded_file import UnreadableFileError, read_bounded
from engine.cache.checksummed_file import UnusableFileError, keep, read_kept
from engine.cache.folders import cache_folder, make_private_folder
from engine.calibration.measurement import CannotMeasureError, Open, Verdict
from interfaces.error_text import what_it_says

# Raise it when a measurement decides in another way, or is kept in another.
_VERSION = "3"
_MAX_KEPT_BYTES = 65_536
# After so many starts whose measurement failed or was disturbed, on a busy or slow machine, no
# start measures.
_ATTEMPTS = 3
# A measurement that had less of its cores may say what does not hold without what disturbed it.
_LEAST_CPU_SHARE = 0.9
# A measurement takes 3 s, or 1 s more than loading the model does.
_LONGEST_WAIT_S, _ASK_INTERVAL_S = 30.0, 0.05

_logger = logging.getLogger(__name__)


def kept_or_measured(
    asked: Open,
    key: Mapping[str, str],
    start_folder: Path | None,
    measured: Callable[[], Verdict],
) -> Verdict:
    """What suits the machine, kept from another start or measured now.

    Of several processes that ask the same at the same time, such as two servers, one measures and
    the others wait. What other work has disturbed is measured again by the next start. The
    processes of one start all go on with one answer, also those that start later and take the place
    of others: a worker that measured anew would do so beside those that serve.

    Args:
        asked: what is to be found out.
        key: all that it depends on: model, engine, precision, CPU, versions.
        start_folder: what the processes of one start of a server have in common; None where each
            process is a start.
        measured: finds it out, as `measure` does.

    Raises:
        CannotMeasureError: why it is not known.
    """
    key = {"version": _VERSION, "asked": str(asked), **key}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / f"calibration-{digest[:16]}.json"
    of_start = None if start_folder is None else start_folder / path.name
    found = None if of_start is None else _read_of_start(of_start, asked, key)
    if found is None:
        found = _found(path, asked, key, measured)
        if of_start is not None:
            # Without it, as on a full disk, each one asks the cache.
            with suppress(OSError):
                write_atomically(of_start, _content(found, key))
    if found.verdict is None:
        raise CannotMeasureError(_why_not(found))
    return replace(found.verdict, reason=_reason(found, found.verdict, path.name))


@dataclass(frozen=True)
class _Attempts:
    """What starts have found so far.

    Attributes:
        verdict: the one that was disturbed least; None while none has one.
        why_not: why the last attempt gave none, or was not made; "" where neither is so.
        count: how many there were.
    """

    verdict: Verdict | None = None
    why_not: str = ""
    count: int = 0

    @property
    def is_reliable(self) -> bool:
        """Whether there is nothing to measure again."""
        return self.verdict is not None and self.verdict.cpu_share >= _LEAST_CPU_SHARE


def _found(
    path: Path, asked: Open, key: Mapping[str, str], measured: Callable[[], Verdict]
) -> _Attempts:
    """What is kept, after one more measurement where that may say more."""
    kept = _Attempts()
    with suppress(FileNotFoundError, UnusableFileError):
        kept = _parsed(read_kept(path, _MAX_KEPT_BYTES), asked, key)
    if kept.is_reliable:
        # Nobody is waited for.
        return kept
    try:
        with _turn(path) as turn:
            kept = _read(path, asked, key)
            # One more in its turn would make the start longer, with no better hope.
            if kept.is_reliable or turn.waited or kept.count >= _ATTEMPTS:
                return kept
            # Known before time is spent on what could not be kept.
            if turn.why_not_kept:
                return replace(kept, why_not=turn.why_not_kept)
            now = _measured_once_more(kept, measured)
            if now.count > kept.count:
                keep(path, _content(now, key))
            return now
    except CannotMeasureError as error:
        return replace(kept, why_not=str(error))


def _read(path: Path, asked: Open, key: Mapping[str, str]) -> _Attempts:
    try:
        return _parsed(read_kept(path, _MAX_KEPT_BYTES), asked, key)
    except FileNotFoundError:
        pass
    except UnusableFileError as damage:
        _logger.warning("measuring batches again: %s cannot be used: %s", path, damage)
    return _Attempts()


def _measured_once_more(earlier: _Attempts, measured: Callable[[], Verdict]) -> _Attempts:
    """What is known after one more measurement, which does not count where the engine failed."""
    _logger.info("measuring which batches suit this machine (--calibrate off leaves it out)")
    today = datetime.datetime.now().astimezone().date()
    count = earlier.count + 1
    try:
        found = measured()
    except CannotMeasureError as error:
        return replace(earlier, why_not=f"{error}, on {today}", count=count)
    except Exception as error:  # noqa: BLE001 (whatever an engine raises)
        return replace(earlier, why_not=what_it_says(error))
    found = replace(found, reason=f"{found.reason}, measured here on {today}")
    best = max(filter(None, (found, earlier.verdict)), key=lambda it: it.cpu_share)
    return _Attempts(best, "", count)


def _why_not(found: _Attempts) -> str:
    if not found.why_not:
        return "another process was to measure it, and has kept nothing"
    if found.count < _ATTEMPTS:
        return found.why_not
    return f"{found.why_not}, the last of {found.count} attempts"


def _reason(found: _Attempts, verdict: Verdict, name: str) -> str:
    if found.is_reliable:
        return verdict.reason
    told = (
        f"{verdict.reason} with only {verdict.cpu_share:.0%} of its cores' time, as other work "
        "disturbed it"
    )
    if found.count >= _ATTEMPTS:
        hint = f"remove {name} from the cache folder to measure again"
        return f"{told}, as it did at {found.count} starts; {hint}"
    if found.why_not:
        return f"{told}, and not measured again: {found.why_not}"
    return f"{told}: the next start measures again"


def _read_of_start(path: Path, asked: Open, key: Mapping[str, str]) -> _Attempts | None:
    """What another process of this start goes on with; None where none has asked."""
    try:
        return _parsed(read_bounded(path, _MAX_KEPT_BYTES), asked, key)
    except (UnreadableFileError, UnusableFileError):
        return None


def _content(found: _Attempts, key: Mapping[str, str]) -> bytes:
    return json.dumps({"key": key, **asdict(found)}).encode()


def _parsed(content: bytes, asked: Open, key: Mapping[str, str]) -> _Attempts:
    """What `_content` was made of; UnusableFileError if it is something else."""
    try:
        kept = json.loads(content)
        if kept.pop("key") != key:
            raise UnusableFileError("it was measured for something else")
        verdict = kept["verdict"]
        if verdict is not None:
            share = float(verdict["cpu_share"])
            if not math.isfinite(share):
                raise UnusableFileError("it is no measurement")
            verdict = Verdict(int(verdict["batch"]), str(verdict["reason"]), share)
        attempts = _Attempts(verdict, str(kept["why_not"]), max(0, int(kept["count"])))
    except (
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        TypeError,
        RecursionError,
    ) as error:
        raise UnusableFileError("it is no measurement") from error
    if attempts.verdict is not None and attempts.verdict.batch not in asked.sizes:
        raise UnusableFileError("it has other batches than were to be measured")
    return attempts


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
    """The turn of this process; CannotMeasureError where another one does not get on with its own.

    The lock is on a file of its own, since what is kept is another file each time it is written.
    """
    with ExitStack() as stack:
        try:
            make_private_folder(path.parent)
            lock = path.with_suffix(".lock")
            file = stack.enter_context(open(lock, "a", opener=_open_without_waiting))
        except OSError as error:
            reason = f"{path.parent} cannot be written ({error.strerror or error})"
            hint = "so each start would measure again; THRIFTPIPE_CACHE_DIR names another folder"
            yield _Turn(why_not_kept=f"{reason}, {hint}")
            return
        yield _Turn(waited=_waited_for_lock(file))


def _open_without_waiting(path: str, flags: int) -> int:
    """A named pipe is opened for writing alone only when somebody reads."""
    return os.open(path, flags & ~os.O_WRONLY | os.O_RDWR, 0o600)


def _waited_for_lock(file: TextIO) -> bool:
    """Lock a file until it is closed; whether another process had it.

    Raises:
        CannotMeasureError: it had it for too long.
    """
    end_s = time.monotonic() + _LONGEST_WAIT_S
    waited = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
        except OSError:
            # A file system without locks: every process measures for itself.
            return False
        else:
            return waited
        if time.monotonic() > end_s:
            raise CannotMeasureError(
                f"another process has been measuring the same for {_LONGEST_WAIT_S:g} s"
            )
        time.sleep(_ASK_INTERVAL_S)
