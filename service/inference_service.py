"""The methods of InferenceService, on top of whichever handler runs."""

from __future__ import annotations

import logging
import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from idl import inference
from service.admission import Admission
from service.call_limits import CallLimits
from service.handler import (
    Deadline,
    DeadlineExceededError,
    Handler,
    ImageFailure,
    InvalidImageError,
    Scores,
)
from service.labels import Labels, top_classes
from service.placement import Placement
from service.processor import INTERNAL_ERROR_MESSAGE, new_error_id
from service.readiness import Readiness

_log = logging.getLogger(__name__)

MAX_TOP_K_ENTRIES = 100_000
"""Most entries of all `top_k` lists of one reply: it must stay a size that clients accept."""

_VERSIONED_PACKAGES = ("thriftpipe", "thriftpy2", "numpy")


class InferenceService:
    """Implements the IDL's methods; called from many threads at once.

    A parameter without a default is a required argument of the call.
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
    ) -> None:
        self._handler_name = handler_name
        self._handler = handler
        self._labels = labels
        self._admission = admission
        self._limits = limits
        self._placement = placement
        self._readiness = readiness

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
        with self._admission.admit(1):
            outcome = self._classify([params.data], deadline)[0]
        if isinstance(outcome, Scores):
            class_id = top_classes(outcome.probabilities, 1)[0]
            return inference.InferenceResult(
                self._labels.names[class_id], float(outcome.probabilities[class_id])
            )
        if isinstance(outcome, InvalidImageError):
            raise inference.InvalidImage(str(outcome), params.uuid)
        if isinstance(outcome, DeadlineExceededError):
            raise inference.DeadlineExceeded(str(outcome), deadline.timeout_ms)
        raise inference.InternalError(INTERNAL_ERROR_MESSAGE, _logged("infer_batch", outcome))

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
        self._limits.check_count(len(requests))
        top_k = self._checked_top_k(options.top_k, len(requests))
        deadline = self._limits.deadline(options.timeout_ms)
        if not requests:
            return []
        with self._admission.admit(len(requests)):
            outcomes = self._classify([params.data for params in requests], deadline)
        return [
            self._result(params.uuid, outcome, top_k, bool(options.with_stage_times))
            for params, outcome in zip(requests, outcomes, strict=True)
        ]

    def server_info(self) -> Any:
        """Who answers: ServerInfo."""
        info = self._handler.info()
        return inference.ServerInfo(
            handler=self._handler_name,
            engine=info.engine,
            precision=info.precision,
            model=info.model,
            model_sha256=info.model_sha256,
            config_sha256=info.config_sha256,
            pid=os.getpid(),
            versions={**_own_versions(), **info.versions},
            settings=info.settings,
            worker=self._placement.worker,
            workers=self._placement.workers,
            supervisor_pid=self._placement.supervisor_pid,
        )

    def health(self) -> Any:
        """Whether requests can be taken: Health."""
        reason = self._readiness.why_not()
        return inference.Health(ready=not reason, reason=reason)

    def _classify(self, images: Sequence[bytes], deadline: Deadline) -> list[Scores | ImageFailure]:
        """The handler's outcomes, but for images that it must not get.

        Scores that are no numbers become failures.
        """
        failures = [self._limits.image_failure(image) for image in images]
        taken = [image for image, failure in zip(images, failures, strict=True) if failure is None]
        outcomes = self._handler.classify(taken, deadline) if taken else []
        if len(outcomes) != len(taken):
            raise RuntimeError(f"the handler gave {len(outcomes)} outcomes for {len(taken)} images")
        following = iter(outcomes)
        return [failure or _checked(next(following)) for failure in failures]

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
            return inference.InferenceResult("", 0.0, uuid=uuid, error=_image_error(outcome))
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


def _checked(outcome: Scores | ImageFailure) -> Scores | ImageFailure:
    if isinstance(outcome, Scores) and not math.isfinite(outcome.probabilities.sum()):
        return ImageFailure("the model's scores are not finite numbers")
    return outcome


def _image_error(failure: ImageFailure) -> Any:
    """The ImageError that says why one image has no scores."""
    codes = inference.ErrorCode
    if isinstance(failure, InvalidImageError):
        return inference.ImageError(codes.INVALID_IMAGE, str(failure))
    if isinstance(failure, DeadlineExceededError):
        return inference.ImageError(codes.DEADLINE_EXCEEDED, str(failure))
    error_id = _logged("infer_images", failure)
    return inference.ImageError(codes.INTERNAL, INTERNAL_ERROR_MESSAGE, error_id)


def _logged(method: str, failure: ImageFailure) -> str:
    """Log what the client must not see; return the id under which it stands in the log."""
    error_id = new_error_id()
    _log.error("%s: an image failed, error_id %s", method, error_id, exc_info=failure)
    return error_id


def _own_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _VERSIONED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
