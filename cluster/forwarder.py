"""One call of infer_images on its way through the replicas, until one of them has answered it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from thriftpy2.thrift import TApplicationException

from cluster.gathering import FEW_IMAGES, MOST_IMAGES
from cluster.hop import ClientGoneError, HopError, HopTimeoutError, StaleConnectionError
from cluster.infer_arguments import options_piece, requests_in_pieces
from cluster.replicas import Replica, Replicas
from idl import inference
from service.handlers.deadline import Deadline
from service.refusals import overloaded
from service.wire.processor import INTERNAL_ERROR_MESSAGE, new_error_id

_log = logging.getLogger(__name__)

REPLICAS = "replicas"
"""The reason of calls that are refused since no replica takes them."""

# A replica answers by the deadline; only one that hangs does not.
_GRACE_S = 0.5
# A call that broke so many replicas' connections may be what ends them.
_MOST_BROKEN = 3
# For another replica than the one that died under a call, where there is none.
_PATIENCE_S = 1.0
_RETRY_AFTER_MS = 1000


class Forwarder:
    """Gives calls to replicas. For all threads.

    A call is given to another replica where one died under it, which is safe, since classifying
    changes nothing; and to a second one where the first refuses it as overload.

    Args:
        replicas: which there are.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    def infer(self, requests: Sequence[Any], options: Any, deadline: Deadline) -> list[Any]:
        """The replica's results.

        Args:
            requests: InferenceParams, at least one.
            options: InferOptions; its timeout_ms is replaced by what is left of the deadline.
            deadline: of the call, with its client.

        Raises:
            InvalidRequest, Overloaded, InternalError: as declared.
            DeadlineExceededError: the time is over, or the client has gone.
        """
        head, images = requests_in_pieces(requests), len(requests)
        until_s = deadline.at_s + _GRACE_S
        without: set[str] = set()
        broken: list[str] = []
        refusal: Any = None
        while True:
            deadline.check()
            patience_s = min(_PATIENCE_S, deadline.remaining_s()) if broken else 0.0
            replica = self._replicas.take(images, without, patience_s)
            if replica is None:
                raise refusal or _none_there(broken)
            options.timeout_ms = _left_ms(deadline)
            pieces = [*head, options_piece(options)]
            # What a replica died under may have been one of those that it had got together.
            is_alone = broken or images > MOST_IMAGES or replica.outstanding <= FEW_IMAGES
            gathering = replica.gathering
            call = gathering.call_alone if is_alone else gathering.call
            try:
                result = _asked(replica, partial(call, pieces, until_s, deadline.peer))
            except HopError as error:
                without.add(replica.entry.name)
                replica.broke()
                _log.warning("replica %s at %s: %s", replica.entry.name, replica.entry.place, error)
                if error.had_begun:
                    broken.append(replica.entry.name)
                    if len(broken) == _MOST_BROKEN:
                        raise _internal(f"it broke {', '.join(broken)}") from error
                continue
            except HopTimeoutError as error:
                # One that is only slow would have said that the time is over.
                replica.broke()
                _log.warning("replica %s at %s: no reply", replica.entry.name, replica.entry.place)
                raise deadline.failure() from error
            except ClientGoneError as error:
                raise deadline.failure() from error
            except TApplicationException as error:
                raise _internal(f"{replica.entry.name} refused it: {error}") from error
            finally:
                self._replicas.release(replica, images)
            replica.answered()
            if result.success is not None:
                return list(result.success)
            refused = result.invalid_request or result.overloaded or result.internal_error
            if refused is None:
                raise _internal(f"{replica.entry.name} gave neither results nor an error")
            if result.overloaded is None or refusal is not None:
                raise _named(refused)
            refusal = _named(refused)
            without.add(replica.entry.name)


def _asked(replica: Replica, call: Callable[[], Any]) -> Any:
    """The result's struct; a connection that had been closed meanwhile is replaced."""
    stale: StaleConnectionError | None = None
    while True:
        try:
            return call()
        except StaleConnectionError as error:
            stale = error
            # Those that were kept with it are no better.
            replica.close()
        except HopError as error:
            # It was no idle connection that ended, but the replica, with the call.
            raise error if error.had_begun or stale is None else stale from error


def _left_ms(deadline: Deadline) -> int | None:
    if deadline.at_s == math.inf:
        return None
    return max(1, math.ceil((deadline.at_s - time.monotonic()) * 1000))


def _named(error: Any) -> Any:
    """A replica's error, which is counted here under its own reason."""
    if isinstance(error, inference.Overloaded):
        return overloaded(REPLICAS, error.message, error.retry_after_ms)
    return error


def _none_there(broken: Sequence[str]) -> Any:
    died = f"{', '.join(broken)} died under the call, and " if broken else ""
    return overloaded(REPLICAS, f"{died}no replica can take it just now", _RETRY_AFTER_MS)


def _internal(why: str) -> Any:
    error_id = new_error_id()
    _log.error("infer_images: %s, error_id %s", why, error_id)
    return inference.InternalError(INTERNAL_ERROR_MESSAGE, error_id)
