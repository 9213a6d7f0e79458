"""What a measurement has found, kept in the cache folder: the next start measures nothing."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from engine.cache.checksummed_file import UnusableFileError, keep, read_kept
from engine.cache.folders import cache_folder, make_private_folder
from engine.calibration.measurement import CannotMeasureError, Open, Verdict, measure
from engine.interface import Engine
from interfaces.error_text import what_it_says

# Raise it when a measurement decides in another way.
_VERSION = "2"
_MAX_KEPT_BYTES = 65_536
# After so many starts whose measurement failed, or was disturbed, no start measures.
_ATTEMPTS = 3
# A measurement that had less of its cores may say what holds only beside the others.
_LEAST_CPU_SHARE = 0.9
# A measurement takes 3 s, or 1 s more than loading the model does.
_LONGEST_WAIT_S, _ASK_INTERVAL_S = 30.0, 0.05

_logger = logging.getLogger(__name__)


def kept_or_measured(
    asked: Open,
    key: Mapping[str, str],
    load: Callable[[int], Engine],
    before_row: Callable[[], object] = lambda: None,
) -> Verdict:
    """What suits the machine, kept from another start or measured now.

    Of several processes that ask the same at the same time, such as the workers of a server, one
    measures and the others wait: all of them go on with one answer.

    Args:
        asked: what is to be found out.
        key: all that it depends on: model, engine, precision, CPU, versions.
        load: as in `measure`.
        before_row: as there.

    Raises:
        CannotMeasureError: why it is not known.
    """
    key = {"version": _VERSION, "asked": str(asked), **key}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / f"calibration-{digest[:16]}.json"
    with _turn(path) as turn:
        earlier = _Attempts()
        try:
            earlier = _read(path, asked, key)
        except FileNotFoundError:
            pass
        except UnusableFileError as damage:
            _logger.warning("measuring batches again: %s cannot be used: %s", path, damage)
        # One more in its turn would make the start longer, with no better hope.
        is_last = turn.waited or earlier.count >= _ATTEMPTS
        if earlier.verdict is not None and (is_last or not earlier.why_not):
            return earlier.verdict
        if turn.waited:
            raise CannotMeasureError(earlier.why_not or "the process that measured it has failed")
        if is_last:
            raise CannotMeasureError(f"{earlier.why_not}, the last of {earlier.count} attempts")
        # Known before time is spent on what could not be kept.
        if turn.why_not_kept:
            raise CannotMeasureError(turn.why_not_kept)
        _logger.info(
            "measuring which batches suit this machine (once; --calibrate off leaves it out)"
        )
        now = _attempt(lambda: measure(asked, load, before_row), earlier.count + 1)
        keep(path, json.dumps({"key": key, **asdict(now)}).encode())
        if now.verdict is None:
            raise CannotMeasureError(now.why_not)
        return now.verdict


@dataclass(frozen=True)
class _Attempts:
    """What starts have found so far.

    Attributes:
        verdict: that of the last one, if it has one.
        why_not: why it has none, or none to rely on; "" where there is one.
        count: how many starts have tried.
    """

    verdict: Verdict | None = None
    why_not: str = ""
    count: int = 0


def _attempt(measured: Callable[[], Verdict], count: int) -> _Attempts:
    """What a measurement says, or why it says nothing; CannotMeasureError where no other would."""
    today = datetime.datetime.now().astimezone().date()
    try:
        found = measured()
    except CannotMeasureError as error:
        return _Attempts(None, f"{error}, on {today}", count)
    except Exception as error:
        raise CannotMeasureError(what_it_says(error)) from error
    reason, disturbed = f"{found.reason}, measured here on {today}", ""
    if found.cpu_share < _LEAST_CPU_SHARE:
        disturbed = f"other processes had {1 - found.cpu_share:.0%} of its cores' time"
        last = "" if count < _ATTEMPTS else f", as in {count} attempts"
        reason += f", while {disturbed}{last or ': the next start measures again'}"
    return _Attempts(replace(found, reason=reason), disturbed, count)


def _read(path: Path, asked: Open, key: Mapping[str, str]) -> _Attempts:
    content = read_kept(path, _MAX_KEPT_BYTES)
    try:
        kept = json.loads(content)
        if kept.pop("key") != key:
            raise UnusableFileError("it was measured for something else")
        verdict = kept.pop("verdict")
        earlier = _Attempts(None if verdict is None else Verdict(**verdict), **kept)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise UnusableFileError("it is no measurement") from error
    if earlier.verdict is not None and earlier.verdict.batch not in asked.sizes:
        raise UnusableFileError("it has other batches than were to be measured")
    return earlier


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
            file = stack.enter_context(path.with_suffix(".lock").open("a"))
        except OSError as error:
            reason = f"{path.parent} cannot be written ({error.strerror or error})"
            hint = "so each start would measure again; THRIFTPIPE_CACHE_DIR names another folder"
            yield _Turn(why_not_kept=f"{reason}, {hint}")
            return
        yield _Turn(waited=_waited_for_lock(file))


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
