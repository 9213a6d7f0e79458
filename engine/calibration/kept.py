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
    asked: Open, key: Mapping[str, str], start: str | None, measured: Callable[[], Verdict]
) -> Verdict:
    """What suits the machine, kept from another start or measured now.

    Of several processes that ask the same at the same time, such as the workers of a server, one
    measures and the others wait: all of them go on with one answer. What other work has disturbed
    is measured again by the next start, but not by a worker that replaces another one: it would
    measure beside those that serve, and go on with another answer than theirs.

    Args:
        asked: what is to be found out.
        key: all that it depends on: model, engine, precision, CPU, versions.
        start: names the start of the server that this process belongs to; None where it is alone.
        measured: finds it out, as `measure` does.

    Raises:
        CannotMeasureError: why it is not known.
    """
    key = {"version": _VERSION, "asked": str(asked), **key}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / f"calibration-{digest[:16]}.json"
    with _turn(path) as turn:
        kept = _Attempts()
        try:
            kept = _read(path, asked, key)
        except FileNotFoundError:
            pass
        except UnusableFileError as damage:
            _logger.warning("measuring batches again: %s cannot be used: %s", path, damage)
        # One more in its turn would make the start longer, with no better hope.
        has_tried = turn.waited or (start is not None and start == kept.start)
        if not (kept.is_reliable or has_tried or kept.count >= _ATTEMPTS):
            # Known before time is spent on what could not be kept.
            if turn.why_not_kept:
                raise CannotMeasureError(turn.why_not_kept)
            kept = _measured_once_more(kept, start, measured)
            keep(path, json.dumps({"key": key, **asdict(kept)}).encode())
    if kept.verdict is None:
        raise CannotMeasureError(_why_not(kept))
    return replace(kept.verdict, reason=_reason(kept, kept.verdict, path.name))


@dataclass(frozen=True)
class _Attempts:
    """What starts have found so far.

    Attributes:
        verdict: the one that was disturbed least; None while none has one.
        why_not: why the last one has none; "" where it has.
        count: how many there were.
        start: names the last one; None where its one process was alone.
    """

    verdict: Verdict | None = None
    why_not: str = ""
    count: int = 0
    start: str | None = None

    @property
    def is_reliable(self) -> bool:
        """Whether there is nothing to measure again."""
        return self.verdict is not None and self.verdict.cpu_share >= _LEAST_CPU_SHARE


def _measured_once_more(
    earlier: _Attempts, start: str | None, measured: Callable[[], Verdict]
) -> _Attempts:
    """What is known after one more measurement; CannotMeasureError where no other could help."""
    _logger.info("measuring which batches suit this machine (once; --calibrate off leaves it out)")
    today = datetime.datetime.now().astimezone().date()
    now = replace(earlier, why_not="", count=earlier.count + 1, start=start)
    try:
        found = measured()
    except CannotMeasureError as error:
        return replace(now, why_not=f"{error}, on {today}")
    except Exception as error:
        raise CannotMeasureError(what_it_says(error)) from error
    found = replace(found, reason=f"{found.reason}, measured here on {today}")
    best = max(filter(None, (found, earlier.verdict)), key=lambda it: it.cpu_share)
    return replace(now, verdict=best)


def _why_not(kept: _Attempts) -> str:
    if not kept.count:
        return "the process that measured it has failed"
    if kept.count < _ATTEMPTS:
        return kept.why_not
    return f"{kept.why_not}, the last of {kept.count} attempts"


def _reason(kept: _Attempts, verdict: Verdict, name: str) -> str:
    if kept.is_reliable:
        return verdict.reason
    again = "the next start measures again"
    if kept.count >= _ATTEMPTS:
        again = f"the best of {kept.count}; remove {name} from the cache folder to measure again"
    return (
        f"{verdict.reason} with only {verdict.cpu_share:.0%} of its cores' time, as other work "
        f"disturbed it: {again}"
    )


def _read(path: Path, asked: Open, key: Mapping[str, str]) -> _Attempts:
    content = read_kept(path, _MAX_KEPT_BYTES)
    try:
        kept = json.loads(content)
        if kept.pop("key") != key:
            raise UnusableFileError("it was measured for something else")
        verdict = kept.pop("verdict")
        attempts = _Attempts(None if verdict is None else Verdict(**verdict), **kept)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
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
