"""The calls that every client makes, and what it reports of their answers.

The clients in C++ and Java make the same calls and print the same report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

# As many images as the server ever takes.
WHOLE_SERVER = 24

Report = dict[str, str]


class Client(Protocol):
    """One connection of some Thrift library.

    Attributes:
        types: the structs and exceptions of the IDL.
        application_error: the library's TApplicationException.
    """

    types: Any
    application_error: type[Exception]

    def send(self, method: str, *arguments: Any) -> None:
        """Send a call."""

    def send_empty(self, method: str) -> None:
        """Send a call without any argument, also of a method that does not exist."""

    def receive(self, method: str) -> Any:
        """The answer to the oldest call that has none; raises what was declared."""

    def close(self) -> None:
        """Close the connection."""


def call(client: Client, method: str, *arguments: Any) -> Any:
    client.send(method, *arguments)
    return client.receive(method)


def report_of(client: Client, other: Client, images: Sequence[bytes]) -> Report:
    """What a library makes of the service's answers, as text by name.

    Args:
        client: a connection.
        other: another one.
        images: encoded images.
    """
    report: Report = {}
    report["ping"] = str(call(client, "ping"))
    for number, image in enumerate(images):
        _add_result(
            report, f"infer_batch.{number}", call(client, "infer_batch", _one(client, image))
        )
    _add_lists(report, client, images)
    _add_info(report, client)
    _add_exceptions(report, client, images[0])
    _add_application_errors(report, client)
    for image in images[:2]:
        client.send("infer_batch", _one(client, image))
    for number in range(2):
        _add_result(report, f"pipelined.{number}", client.receive("infer_batch"))
    _add_overload(report, client, other, images[0])
    return report


def _one(client: Client, image: bytes, uuid: str = "one") -> Any:
    return client.types.InferenceParams(uuid=uuid, data=image)


def _add_lists(report: Report, client: Client, images: Sequence[bytes]) -> None:
    requests = [_one(client, image, f"u{number}") for number, image in enumerate(images)]
    bad = _one(client, b"no image", "bad")
    options = client.types.InferOptions(top_k=2, timeout_ms=60_000, with_stage_times=True)
    results = call(client, "infer_images", [requests[0], bad, *requests[1:]], options)
    for number, result in enumerate(results):
        _add_result(report, f"with_options.{number}", result)
    for number, result in enumerate(call(client, "infer_images", requests, None)):
        _add_result(report, f"without_options.{number}", result)


def _add_info(report: Report, client: Client) -> None:
    info = call(client, "server_info")
    for name in ("handler", "engine", "precision", "model", "model_sha256", "config_sha256"):
        report[f"server_info.{name}"] = getattr(info, name)
    for name in ("pid", "worker", "workers"):
        report[f"server_info.{name}"] = str(getattr(info, name))
    for name in ("versions", "settings"):
        pairs = sorted(getattr(info, name).items())
        report[f"server_info.{name}"] = ",".join(f"{key}={value}" for key, value in pairs)
    health = call(client, "health")
    report["health.ready"] = str(health.ready).lower()
    report["health.reason"] = health.reason


def _add_exceptions(report: Report, client: Client, image: bytes) -> None:
    types = client.types
    try:
        call(client, "infer_batch", _one(client, b"no image", "bad"))
    except types.InvalidImage as error:
        report["invalid_image.message"] = error.message
        report["invalid_image.uuid"] = error.uuid
    try:
        call(client, "infer_images", [_one(client, image)], types.InferOptions(top_k=0))
    except types.InvalidRequest as error:
        report["invalid_request.message"] = error.message
    try:
        call(client, "infer_batch", _one(client, b"late:" + image))
    except types.DeadlineExceeded as error:
        report["deadline_exceeded.message"] = error.message
        report["deadline_exceeded.timeout_ms"] = str(error.timeout_ms)
    try:
        call(client, "infer_batch", _one(client, b"fail:" + image))
    except types.InternalError as error:
        report["internal_error.message"] = error.message
        report["internal_error.error_id"] = str(len(error.error_id))


def _add_application_errors(report: Report, client: Client) -> None:
    for name, sent, answered in (
        ("unknown_method", "classify", "ping"),
        ("missing_argument", "infer_batch", "infer_batch"),
    ):
        client.send_empty(sent)
        try:
            client.receive(answered)
        except client.application_error as error:
            report[f"{name}.type"] = str(error.type)  # type: ignore[attr-defined]
            report[f"{name}.message"] = error.message  # type: ignore[attr-defined]


def _add_overload(report: Report, client: Client, other: Client, image: bytes) -> None:
    """One image stays in the server; as many as it ever takes find no place beside it."""
    other.send("infer_images", [_one(client, b"hold:" + image)], None)
    call(client, "infer_batch", _one(client, b"held:" + image))
    try:
        call(client, "infer_images", [_one(client, image)] * WHOLE_SERVER, None)
    except client.types.Overloaded as error:
        report["overloaded.message"] = error.message
        report["overloaded.retry_after_ms"] = "positive" if error.retry_after_ms > 0 else "none"
    call(client, "infer_batch", _one(client, b"free:" + image))
    _add_result(report, "overloaded.other", other.receive("infer_images")[0])


def _add_result(report: Report, name: str, result: Any) -> None:
    report[f"{name}.label"] = result.label
    report[f"{name}.score"] = repr(result.score)
    if result.uuid is not None:
        report[f"{name}.uuid"] = result.uuid
    if result.class_id is not None:
        report[f"{name}.class_id"] = str(result.class_id)
    for place, entry in enumerate(result.top_k or ()):
        report[f"{name}.top_k.{place}.class_id"] = str(entry.class_id)
        report[f"{name}.top_k.{place}.label"] = entry.label
        report[f"{name}.top_k.{place}.score"] = repr(entry.score)
    if result.error is not None:
        report[f"{name}.error.code"] = str(int(result.error.code))
        report[f"{name}.error.message"] = result.error.message
    if result.stage_times_ms is not None:
        report[f"{name}.stages"] = ",".join(sorted(result.stage_times_ms))
