"""What the load test and its client processes say to each other."""

from __future__ import annotations

from dataclasses import dataclass

PROGRESS_INTERVAL_S = 0.2
RECORDS_PER_LINE = 2000


@dataclass(frozen=True)
class ClientConfig:
    """The part of the load that one client process sends.

    Attributes:
        host: where the server is.
        port: where the server is.
        image_paths: files to send.
        expected_labels: for each file the label that it must get, or None where any will do.
        users: closed-loop clients in this process.
        first_user: number of the first of them; numbers are unique over all processes.
        request_batch: images in a request; 1 calls infer_batch, more call infer_images.
        seed: decides the order of the images.
        request_timeout_s: longest wait for one reply.
    """

    host: str
    port: int
    image_paths: list[str]
    expected_labels: list[str | None]
    users: int
    first_user: int
    request_batch: int
    seed: int
    request_timeout_s: float
