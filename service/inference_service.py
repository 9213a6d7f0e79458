"""The methods of InferenceService, on top of a handler."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from thriftpy2.thrift import TType

from idl import inference
from interfaces.service import CLASSES, NOTE, OPTIONS_GIVEN
from interfaces.stats import Stats
from interfaces.structs import to_struct
from interfaces.versions import package_versions
from service.admission import Admission
from service.call_counts import CallCounts
from service.call_limits import CallLimits
from service.errors import forget_frames
from service.failure_replies import call_error, image_error, no_stats
from service.handler_calls import Begun, HandlerCalls
from service.handlers.deadline import Deadline
from service.handlers.interface import Handler
from service.handlers.outcomes import ImageFailure, Scores
from service.handlers.readiness import Readiness
from service.labels import Labels, top_classes
from service.processes.placement import Placement
from service.wire.peer import current_peer

MAX_TOP_K_ENTRIES = 100_000
"""Most entries of all `top_k` lists of one reply: it must stay a size that clients accept."""

# Field 1 of infer_images, and of what kind its elements are; the number of them follows.
_LIST_OF_IMAGES = bytes([TType.LIST, 0, 1, TType.STRUCT])
# A few, as of an ordinary call, cost no more than the connection has anyway.
FREE_ENTRIES = 64
# Of an entry: its objects, and its label as often as it is copied while it is encoded and sent.
_ENTRY_BYTES, _LABEL_COPIES = 256, 5

_VERSIONED_PACKAGES = ("thriftpipe", "thriftpy2", "numpy")


class InferenceService:
    """Implements the IDL's methods; called from many threads at once.

    A parameter without a default is a required argument of the call.

    Args:
        handler_name: as in ServerInfo.
        handler: classifies.
        labels: of its classes.
        admission: lets calls in.
        limits: what a call may cost.
        placement: this process's among the server's.
        readiness: what `health` says.
        counts: where the outcome of each image is counted.
        whole_stats: the numbers of the whole server; TimeoutError where it does not give them.
    """

    def __init__(
        self,
        handler_name: str,
        handler: Handler,
        labels: Labels,
        admission: Admission,
        limits: CallLimits,
        placement: Placement,
        readiness: Readiness,
        counts: CallCounts,
        whole_stats: Callable[[], Stats],
    ) -> None:
        self._handler_name = handler_name
        self._handler = handler
        self._labels = labels
        letters = sum(map(len, labels.names))
        self._entry_bytes = _ENTRY_BYTES + _LABEL_COPIES * letters // len(labels.names)
        self._admission = admission
        self._limits = limits
        self._placement = placement
        self._readiness = readiness
        self._counts = counts
        self._whole_stats = whole_stats
        self._calls = HandlerCalls(handler, limits, counts)

    def ping(self) -> None:
        """Answer."""

    def infer_batch(self, params: Any) -> Any:
        """Classify one image.

        Args:
            params: InferenceParams.

        Returns:
            InferenceResult with label and score only, as upstream's clients know it.

        Raises:
            InvalidImage, InvalidRequest, Overloaded, DeadlineExceeded, InternalError: as declared.
        """
        deadline = self._limits.deadline()
        with self._admission.admit(1, deadline) as place:
            outcome = self._calls.classify([params.data], deadline, place)[0]
        if isinstance(outcome, Scores):
            class_id = top_classes(outcome.probabilities, 1)[0]
            return inference.InferenceResult(
                self._labels.names[class_id], float(outcome.probabilities[class_id])
            )
        error = call_error(outcome, params.uuid, deadline.timeout_ms)
        forget_frames(outcome)
        raise error

    def check_infer_images(self, arguments: memoryview) -> None:
        """Raise Overloaded before the images are copied, where their call would be refused anyway.

        Args:
            arguments: encoded; the list of images comes first, unless a client is strange.
        """
        if arguments[:4] == _LIST_OF_IMAGES:
            images = int.from_bytes(arguments[4:8], "big")
            self._limits.check_count(images)
            self._admission.check(images)

    def infer_images(self, requests: Sequence[Any], options: Any = None) -> list[Any]:
        """Classify images; one that fails does not touch its neighbours.

        Args:
            requests: InferenceParams.
            options: InferOptions, or None.

        Returns:
            InferenceResult, one a request and in their order.

        Raises:
            InvalidRequest, Overloaded, InternalError: the call as a whole was refused.
        """
        options = options or inference.InferOptions()
        top_k, deadline = self._terms(requests, options)
        if not requests:
            return []
        with self._admission.admit(len(requests), deadline) as place:
            if len(requests) > 1:
                deadline = replace(deadline, image_done=place.image_done)
            outcomes = self._calls.classify([params.data for params in requests], deadline, place)
        return self._results(requests, outcomes, top_k, options)

    def begin_infer_images(
        self, requests: Sequence[Any], options: Any, done: Callable[[], None]
    ) -> Begun[list[Any]]:
        """As `infer_images`, for a thread that has other calls to begin before it waits.

        Args:
            requests: as there.
            options: as there.
            done: called when all images are done, in any thread, or at once: it neither waits nor
                raises.

        Raises:
            InvalidRequest, Overloaded, InternalError: as there; `done` is not called.
        """
        options = options or inference.InferOptions()
        top_k, deadline = self._terms(requests, options)
        if not requests:
            done()
            return Begun(math.inf, list)
        place = self._admission.admit(len(requests), deadline)
        try:
            if len(requests) > 1:
                deadline = replace(deadline, image_done=place.image_done)
            images = [params.data for params in requests]
            begun = self._calls.begin(images, deadline, place, done)
        except BaseException:
            with place:
                raise

        def results() -> list[Any]:
            # Other calls of this thread began meanwhile.
            self._counts.continues(options.traceparent or "")
            with place:
                outcomes = begun.result()
            return self._results(requests, outcomes, top_k, options)

        return Begun(begun.waits_until_s, results)

    def server_info(self) -> Any:
        """The IDL's ServerInfo: handler, engine, model, versions and process."""
        info = self._handler.info()
        settings = {
            **info.settings,
            CLASSES: str(len(self._labels.names)),
            "workers": f"{self._placement.workers} ({self._placement.why})",
            **({OPTIONS_GIVEN: given} if (given := self._placement.options_given) else {}),
            **({NOTE: info.note} if info.note else {}),
        }
        return inference.ServerInfo(
            handler=self._handler_name,
            engine=info.engine,
            precision=info.precision,
            model=_as_utf8(info.model),
            model_sha256=info.model_sha256,
            config_sha256=info.config_sha256,
            pid=os.getpid(),
            versions={
                "python": platform.python_version(),
                **package_versions(_VERSIONED_PACKAGES),
                **info.versions,
            },
            settings={name: _as_utf8(text) for name, text in settings.items()},
            worker=self._placement.worker,
            workers=self._placement.workers,
            supervisor_pid=self._placement.supervisor_pid,
        )

    def health(self) -> Any:
        """Whether requests can be taken: Health."""
        reason = self._readiness.why_not()
        return inference.Health(ready=not reason, reason=reason)

    def stats(self) -> Any:
        """What the whole server has done and does: Stats.

        Raises:
            InternalError: another process of the server does not answer.
        """
        try:
            return to_struct(self._whole_stats(), inference)
        except TimeoutError as error:
            raise no_stats(error) from error

    def _terms(self, requests: Sequence[Any], options: Any) -> tuple[int, Deadline]:
        """How many classes an image of a call gets, and until when the call may stay."""
        if options.traceparent:
            self._counts.continues(options.traceparent)
        self._limits.check_count(len(requests))
        top_k = self._checked_top_k(options.top_k, len(requests))
        deadline = self._limits.deadline(options.timeout_ms)
        entries = top_k * len(requests)
        if entries > FREE_ENTRIES and (peer := current_peer()) is not None:
            peer.take_memory(entries * self._entry_bytes)
        return top_k, deadline

    def _results(
        self,
        requests: Sequence[Any],
        outcomes: Sequence[Scores | ImageFailure],
        top_k: int,
        options: Any,
    ) -> list[Any]:
        results = [
            self._result(params.uuid, outcome, top_k, bool(options.with_stage_times))
            for params, outcome in zip(requests, outcomes, strict=True)
        ]
        for outcome in outcomes:
            if isinstance(outcome, ImageFailure):
                forget_frames(outcome)
        return results

    def _checked_top_k(self, top_k: int | None, images: int) -> int:
        classes = len(self._labels.names)
        if top_k is None:
            return 1
        if not 1 <= top_k <= classes:
            raise inference.InvalidRequest(f"top_k must be 1 to {classes}, got {top_k}")
        if top_k * images > MAX_TOP_K_ENTRIES:
            raise inference.InvalidRequest(
                f"top_k = {top_k} for {images} images makes {top_k * images} entries, at most "
                f"{MAX_TOP_K_ENTRIES} are allowed; lower top_k or split the call"
            )
        return top_k

    def _result(
        self, uuid: str, outcome: Scores | ImageFailure, top_k: int, with_stage_times: bool
    ) -> Any:
        """One image's InferenceResult."""
        if isinstance(outcome, ImageFailure):
            return inference.InferenceResult("", 0.0, uuid=uuid, error=image_error(outcome))
        entries = [
            inference.ClassScore(
                class_id, self._labels.names[class_id], float(outcome.probabilities[class_id])
            )
            for class_id in top_classes(outcome.probabilities, top_k)
        ]
        best = entries[0]
        return inference.InferenceResult(
            best.label,
            best.score,
            uuid=uuid,
            class_id=best.class_id,
            top_k=entries,
            stage_times_ms=outcome.stage_times_ms if with_stage_times else None,
        )


def _as_utf8(text: str) -> str:
    """The text with names of files, which may be any bytes, as a string of Thrift."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
