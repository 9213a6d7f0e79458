"""What a server answers, typed and checked: what is missing in a reply is an error, not a None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from idl import inference
from interfaces.service import ServerInfo
from interfaces.stats import Stats
from interfaces.structs import from_struct
from service.client.errors import (
    ClientError,
    DeadlineExceededError,
    InternalServerError,
    InvalidImageError,
    InvalidReplyError,
    OverloadedError,
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class ClassScore:
    """One class and how sure the model is of it.

    Attributes:
        label: the class's name.
        class_id: its number.
        score: its probability, 0 to 1.
    """

    label: str
    class_id: int
    score: float


@dataclass(frozen=True)
class Classification:
    """What is in an image.

    Attributes:
        label: the best class's name.
        class_id: its number.
        score: its probability, 0 to 1.
        top_k: the best classes, the best one first, as many as were asked for.
        stage_times_ms: milliseconds by stage of the server; empty unless they were asked for.
    """

    label: str
    class_id: int
    score: float
    top_k: tuple[ClassScore, ...]
    stage_times_ms: Mapping[str, float]


@dataclass(frozen=True)
class Health:
    """Whether the server can take requests.

    Attributes:
        ready: whether it can.
        reason: why not; "" where it is ready.
    """

    ready: bool
    reason: str


class ReplyReader:
    """Turns decoded structs into results.

    Args:
        address: the server, for messages.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def classifications(
        self, results: Any, uuids: list[str], top_k: int
    ) -> list[Classification | ClientError]:
        """One outcome a request, in their order.

        Args:
            results: a list of InferenceResult.
            uuids: those of the requests.
            top_k: how many classes each has to name.

        Raises:
            InvalidReplyError: the results are not those of these requests.
        """
        if not isinstance(results, list) or len(results) != len(uuids):
            count = len(results) if isinstance(results, list) else "no"
            raise self._invalid(f"{count} results came back for {len(uuids)} images")
        return [
            self._outcome(result, uuid, top_k) for result, uuid in zip(results, uuids, strict=True)
        ]

    def server_info(self, info: Any) -> ServerInfo:
        """The ServerInfo of a reply; InvalidReplyError if a part is missing."""
        field = self._fields(info)
        return ServerInfo(
            handler=field("handler", str),
            engine=field("engine", str),
            precision=field("precision", str),
            model=field("model", str),
            model_sha256=field("model_sha256", str),
            config_sha256=field("config_sha256", str),
            pid=field("pid", int),
            versions=field("versions", dict),
            settings=field("settings", dict),
            worker=info.worker,
            workers=info.workers,
            supervisor_pid=info.supervisor_pid,
        )

    def health(self, health: Any) -> Health:
        """The Health of a reply; InvalidReplyError if a part is missing."""
        field = self._fields(health)
        return Health(ready=field("ready", bool), reason=field("reason", str))

    def stats(self, stats: Any) -> Stats:
        """The Stats of a reply; InvalidReplyError if a part is missing."""
        try:
            return from_struct(Stats, stats)
        except ValueError as error:
            raise self._invalid(f"the reply's stats cannot be read: {error}") from error

    def _outcome(self, result: Any, uuid: str, top_k: int) -> Classification | ClientError:
        field = self._fields(result)
        if field("uuid", str) != uuid:
            raise self._invalid(f"the result of image {result.uuid!r} is in the place of {uuid!r}")
        if result.error is not None:
            return self._image_error(result.error)
        entries = tuple(self._class_score(entry) for entry in field("top_k", list))
        if len(entries) != top_k:
            raise self._invalid(f"{len(entries)} classes came back, top_k = {top_k} were asked for")
        return Classification(
            label=field("label", str),
            class_id=field("class_id", int),
            score=field("score", float),
            top_k=entries,
            stage_times_ms=result.stage_times_ms or {},
        )

    def _class_score(self, entry: Any) -> ClassScore:
        field = self._fields(entry)
        return ClassScore(
            label=field("label", str), class_id=field("class_id", int), score=field("score", float)
        )

    def _image_error(self, error: Any) -> ClientError:
        field = self._fields(error)
        code, message = field("code", int), f"{self._address}: {field('message', str)}"
        codes = inference.ErrorCode
        if code == codes.INVALID_IMAGE:
            return InvalidImageError(message)
        if code == codes.OVERLOADED:
            return OverloadedError(message)
        if code == codes.DEADLINE_EXCEEDED:
            return DeadlineExceededError(message)
        error_id = error.error_id or ""
        return InternalServerError(f"{message} {error_id}".rstrip(), error_id)

    def _fields(self, struct: Any) -> _Fields:
        return _Fields(struct, self._address)

    def _invalid(self, text: str) -> InvalidReplyError:
        return InvalidReplyError(f"{self._address}: {text}")


class _Fields:
    """Reads a struct's fields, none of which may be missing."""

    def __init__(self, struct: Any, address: str) -> None:
        self._struct = struct
        self._address = address

    def __call__(self, name: str, kind: type[_T]) -> _T:
        value = getattr(self._struct, name, None)
        if not isinstance(value, kind):
            raise InvalidReplyError(
                f"{self._address}: the reply's {type(self._struct).__name__} lacks {name!r}"
            )
        return value
