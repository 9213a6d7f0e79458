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
from engine.calibration.measurement import CannotMeasureError, Open, Verdict
from interfaces.error_text import what_it_says

# Raise it when a measurement decides in another way.
_VERSION = "2"
_MAX_KEPT_BYTES = 65_536
# After so many starts whose measurement failed, on a busy or slow machine, no start measures.
_ATTEMPTS = 3
# A measurement that had less of its cores may say what does not hold without what disturbed it.
_LEAST_CPU_SHARE = 0.9
# A measurement takes 3 s, or 1 s more than loading the model does.
_LONGEST_WAIT_S, _ASK_INTERVAL_S = 30.0, 0.05

_logger = logging.getLogger(__name__)


def kept_or_measured(
    asked: Open, key: Mapping[str, str], measured: Callable[[], Verdict]
) -> Verdict:
    """What suits the machine, kept from another start or measured now.

    Of several processes that ask the same at the same time, such as the workers of a server, one
    measures and the others wait: all of them go on with one answer.

    Args:
        asked: what is to be found out.
        key: all that it depends on: model, engine, precision, CPU, versions.
        measured: finds it out, as `measure` does.

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
        if turn.waited:
            # One more in its turn would make the start longer, with no better hope.
            why_not = kept.why_not if kept else "the process that measured it has failed"
            raise CannotMeasureError(why_not)
        attempts = kept.attempts if kept else 0
        if kept and attempts >= _ATTEMPTS:
            raise CannotMeasureError(f"{kept.why_not}, the last of {attempts} attempts")
        # Known before time is spent on what could not be kept.
        if turn.why_not_kept:
            raise CannotMeasureError(turn.why_not_kept)
        return _kept(measured, key, path, attempts)


def _kept(
    measured: Callable[[], Verdict], key: Mapping[str, str], path: Path, attempts: int
) -> Verdict:
    """What a measurement says, or why it says nothing, and both are kept."""
    _logger.info("measuring which batches suit this machine (once; --calibrate off leaves it out)")
    today = datetime.datetime.now().astimezone().date()
    try:
        found = measured()
    except CannotMeasureError as error:
        in_vain = _InVain(f"{error}, on {today}", attempts + 1)
        keep(path, json.dumps({"key": key, **asdict(in_vain)}).encode())
        raise CannotMeasureError(in_vain.why_not) from None
    except Exception as error:
        raise CannotMeasureError(what_it_says(error)) from error
    reason = f"{found.reason}, measured here on {today}"
    if found.cpu_share < _LEAST_CPU_SHARE:
        reason += (
            f" with only {found.cpu_share:.0%} of its cores' time, as other work disturbed it: "
            f"remove {path.name} from the cache folder to measure again"
        )
    found = replace(found, reason=reason)
    keep(path, json.dumps({"key": key, **asdict(found)}).encode())
    return found


@dataclass(frozen=True)
class _InVain:
    """Why there is no verdict, and how many starts have tried to find one."""

    why_not: str
    attempts: int


def _read(path: Path, asked: Open, key: Mapping[str, str]) -> Verdict | _InVain:
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
    if found.batch not in asked.sizes:
        raise UnusableFileError("it has other batches than were to be measured")
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
