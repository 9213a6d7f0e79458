"""The methods of InferenceService on a front end, which forwards them."""

from __future__ import annotations

import copy
import os
import random
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from cluster.ask_replicas import ask
from cluster.forwarder import Forwarder
from cluster.replica_entry import ReplicaEntry
from cluster.replicas import Replicas
from idl import inference
from interfaces.stats import Stats
from interfaces.structs import to_struct
from service.call_counts import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_IMAGE,
    OK,
    CallCounts,
)
from service.call_limits import CallLimits
from service.failure_replies import call_error, image_error
from service.handlers.deadline import Deadline
from service.handlers.outcomes import DeadlineExceededError
from service.inference_service import FREE_ENTRIES, MAX_TOP_K_ENTRIES
from service.wire.peer import current_peer

_INFO_S = 5.0
_MOST_ASKED = 2
_NO_REPLICA = "none is ready"
_NO_REPLICA_NOTE = (
    "no replica answers, so calls of images are refused; this is what the last one that did has "
    "told. The front end's log and Ray's say why none comes back"
)
# Of an entry of a reply: its objects, and its label as often as it is copied.
_ENTRY_BYTES = 512
_CODES = inference.ErrorCode
_OUTCOMES = {_CODES.INVALID_IMAGE: INVALID_IMAGE, _CODES.DEADLINE_EXCEEDED: DEADLINE_EXCEEDED}


class FrontEndNumbers(Protocol):
    """What tells of a front end as a whole."""

    def stats(self) -> Stats:
        """What it and all replicas have done and do."""

    def why_not_ready(self) -> str:
        """Why no request can be taken; "" where it can."""

    def replicas_in_words(self) -> str:
        """How many there are, and why so many."""


class FrontEndService:
    """Implements the IDL's methods; called from many threads at once.

    Args:
        forwarder: gives calls of images to replicas.
        replicas: which there are.
        limits: what a call may cost; what an image may cost is judged where it is decoded.
        counts: where the outcome of each image is counted.
        server: what tells of all of them.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        replicas: Replicas,
        limits: CallLimits,
        counts: CallCounts,
        server: FrontEndNumbers,
    ) -> None:
        self._forwarder = forwarder
        self._replicas = replicas
        self._limits = limits
        self._counts = counts
        self._server = server
        self._info: Any = None

    def ping(self) -> None:
        """Answer."""

    def infer_batch(self, params: Any) -> Any:
        """Classify one image; as `service.inference_service.InferenceService`."""
        deadline = self._limits.deadline()
        options = inference.InferOptions()
        try:
            [result] = self._forwarded([params], options, deadline)
        except DeadlineExceededError as failure:
            raise call_error(failure, params.uuid, deadline.timeout_ms) from None
        error = result.error
        if error is None:
            return inference.InferenceResult(result.label, result.score)
        if error.code == _CODES.INVALID_IMAGE:
            raise inference.InvalidImage(error.message, params.uuid)
        if error.code == _CODES.DEADLINE_EXCEEDED:
            raise inference.DeadlineExceeded(error.message, deadline.timeout_ms)
        raise inference.InternalError(error.message, error.error_id or "")

    def infer_images(self, requests: Sequence[Any], options: Any = None) -> list[Any]:
        """Classify images; as `service.inference_service.InferenceService`."""
        options = options or inference.InferOptions()
        self._limits.check_count(len(requests))
        deadline = self._limits.deadline(options.timeout_ms)
        if not requests and options.top_k is None:
            return []
        entries = (options.top_k or 1) * len(requests)
        if FREE_ENTRIES < entries <= MAX_TOP_K_ENTRIES and (peer := current_peer()) is not None:
            peer.take_memory(entries * _ENTRY_BYTES)
        try:
            return self._forwarded(requests, options, deadline)
        except DeadlineExceededError as failure:
            error = image_error(failure)
            return [
                inference.InferenceResult("", 0.0, uuid=request.uuid, error=error)
                for request in requests
            ]

    def server_info(self) -> Any:
        """That of a replica, with where it is, and what it is one of: ServerInfo.

        Where none answers it is what the last one told, with a note that says so.

        Raises:
            TimeoutError: none has answered since the front end started.
        """
        entry, info = self._asked()
        names = [one.entry.name for one in self._replicas.all()]
        info.worker = names.index(entry.name) if entry and entry.name in names else None
        info.workers = len(names)
        info.supervisor_pid = os.getpid()
        info.settings = {
            **info.settings,
            "replica": entry.name if entry else _NO_REPLICA,
            "node": f"{entry.node} at {entry.host}:{entry.port}" if entry else _NO_REPLICA,
            "replicas": self._server.replicas_in_words(),
            "front_end": f"pid {os.getpid()} on {socket.gethostname()}",
        }
        return info

    def _asked(self) -> tuple[ReplicaEntry | None, Any]:
        """Which replica has answered, and its ServerInfo; None and the last one where none has."""
        without: set[str] = set()
        last = TimeoutError("no replica is there to ask")
        while len(without) < _MOST_ASKED:
            replica = self._replicas.take(0, without)
            if replica is None:
                break
            try:
                self._info = ask(replica, "server_info", _INFO_S)
            except TimeoutError as error:
                without.add(replica.entry.name)
                last = error
            else:
                return replica.entry, copy.copy(self._info)
        if self._info is None:
            raise last
        info = copy.copy(self._info)
        info.pid = os.getpid()
        notes = (info.settings.get("note"), _NO_REPLICA_NOTE)
        info.settings = {**info.settings, "note": "; ".join(filter(None, notes))}
        return None, info

    def health(self) -> Any:
        """Whether requests can be taken: Health."""
        reason = self._server.why_not_ready()
        return inference.Health(ready=not reason, reason=reason)

    def stats(self) -> Any:
        """What this front end and all replicas have done and do: Stats."""
        return to_struct(self._server.stats(), inference)

    def _forwarded(self, requests: Sequence[Any], options: Any, deadline: Deadline) -> list[Any]:
        if not options.traceparent:
            options.traceparent = _new_traceparent()
        self._counts.continues(options.traceparent)
        try:
            results = self._forwarder.infer(requests, options, deadline)
        except DeadlineExceededError as failure:
            for _ in requests:
                self._counts.image_done(failure.outcome, {})
            raise
        for result in results:
            error = result.error
            outcome = OK if error is None else _OUTCOMES.get(error.code, INTERNAL_ERROR)
            self._counts.image_done(outcome, {})
        return results


def _new_traceparent() -> str:
    """A trace of its own: log lines of a request have one id on both sides of the hop."""
    return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"
