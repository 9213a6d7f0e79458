"""A call of infer_images: what is asked, and what becomes of each image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from idl import inference
from service.client.deadline import CallDeadline
from service.client.errors import ClientError
from service.client.exchange import ConnectionState
from service.client.results import Classification, ReplyReader

METHOD = "infer_images"
# Thrift's i32.
_MAX_TOP_K = 2**31 - 1

# Of all calls of this process.
_uuids = itertools.count()


class ClassifyCall:
    """Images that are classified together.

    Args:
        images: encoded, or why there is none.
        top_k: how many classes to name, at most as many as there are.
        with_stage_times: whether the server says how long each stage took.
        traceparent: the caller's span, as in the W3C's Trace Context; None for none.
        deadline: of the call.

    Attributes:
        has_images: whether there is anything to ask.
    """

    def __init__(
        self,
        images: Sequence[bytes | ClientError],
        top_k: int,
        with_stage_times: bool,
        traceparent: str | None,
        deadline: CallDeadline,
    ) -> None:
        self._images = images
        self._requests = [
            inference.InferenceParams(uuid=f"{next(_uuids)}", data=image)
            for image in images
            if not isinstance(image, ClientError)
        ]
        self._top_k = min(top_k, _MAX_TOP_K)
        self._with_stage_times = with_stage_times
        self._traceparent = traceparent
        self._deadline = deadline
        self.has_images = bool(self._requests)

    def arguments(self, connection: ConnectionState) -> dict[str, Any]:
        """Those of the method, with no more classes than the connection's server has."""
        self.lower_top_k(connection.classes)
        options = inference.InferOptions(
            top_k=self._top_k,
            timeout_ms=self._deadline.remaining_ms,
            with_stage_times=self._with_stage_times,
            traceparent=self._traceparent,
        )
        return {"requests": self._requests, "options": options}

    @property
    def may_ask_too_much(self) -> bool:
        """Whether a server may have fewer classes than are asked for; each has one."""
        return self._top_k > 1

    def lower_top_k(self, classes: int | None) -> bool:
        """Ask for no more classes than there are; whether this is fewer than before.

        Args:
            classes: how many there are; None where that is not known.
        """
        if not classes or self._top_k <= classes:
            return False
        self._top_k = classes
        return True

    def outcomes(self, results: Any, replies: ReplyReader) -> list[Classification | ClientError]:
        """One outcome an image, in their order.

        Args:
            results: a list of InferenceResult, one for each image that was sent.
            replies: reads them.

        Raises:
            InvalidReplyError: the results are not those of these images.
        """
        uuids = [request.uuid for request in self._requests]
        answers = iter(replies.classifications(results, uuids, self._top_k))
        return [
            image if isinstance(image, ClientError) else next(answers) for image in self._images
        ]
