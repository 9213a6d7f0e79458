"""Whether the answers of a new release are good enough to take the place of the old one's."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.replica_entry import ReplicaEntry
from interfaces.names import unknown_name
from service.client.client import Client
from service.client.errors import ClientError
from service.client.images import calls_of_bounded_size
from service.errors import ConfigurationError

_IMAGES_PER_CALL, _BYTES_PER_CALL = 8, 8_000_000
_TIMEOUT_S = 120.0
_SHOWN = 3
_FAILED = "error: "


class CanaryError(Exception):
    """The new release must not go on."""


@dataclass(frozen=True)
class CheckSet:
    """Images that decide.

    Attributes:
        images: name and content of each.
        labels: the right label by name; None where the old release's answers are the measure.
        least_share: share of the images, 0 to 1, of which the best label has to be the wanted one.
    """

    images: Sequence[tuple[str, bytes]]
    labels: Mapping[str, str] | None
    least_share: float


def read_labels(path: Path, names: Sequence[str]) -> dict[str, str]:
    """The right label of each image, from a CSV file with lines of file name and label.

    Args:
        path: the file.
        names: those of the images, each of which must be in it.

    Raises:
        ConfigurationError: it is not so.
    """
    labels: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
                if not row:
                    continue
                if len(row) != 2:
                    raise ConfigurationError(
                        f"--canary-labels: line {number} of {path} has {len(row)} columns instead "
                        "of file name and label; a label with commas needs quotes"
                    )
                if row[0] not in names:
                    raise ConfigurationError(
                        f"--canary-labels: line {number} of {path}: "
                        + unknown_name("image", row[0], names)
                    )
                labels[row[0]] = row[1]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"--canary-labels: {path}: {error}") from error
    if missing := [name for name in names if name not in labels]:
        raise ConfigurationError(
            f"--canary-labels: {path} has no label for {missing[0]}"
            + (f" and {len(missing) - 1} more images" if len(missing) > 1 else "")
        )
    return labels


def require_same_classes(old: ReplicaEntry, new: ReplicaEntry) -> None:
    """Raise CanaryError where the releases have different numbers of classes.

    Clients that ask for many classes, or know their numbers, would get other answers than they
    were written for, from one call to the next.
    """
    counts = []
    for entry in (old, new):
        with _client(entry) as client:
            counts.append(_told(entry, client).get("classes"))
    if counts[0] != counts[1]:
        raise CanaryError(
            f"it has {counts[1]} classes and the running one {counts[0]}: clients would get "
            "answers of either kind during the update; start another server for it"
        )


def check(old: ReplicaEntry, new: ReplicaEntry, check_set: CheckSet) -> str:
    """Ask a replica of each release.

    Returns:
        What was found, in one line.

    Raises:
        CanaryError: too few answers are as they are to be, or there are none.
    """
    names = [name for name, _ in check_set.images]
    got = _best_labels(new, check_set.images)
    if check_set.labels is None:
        wanted = _best_labels(old, check_set.images)
        what = "have the same best label as before"
        if bad := [name for name in names if wanted[name].startswith(_FAILED)]:
            raise CanaryError(
                f"the running release has no answer to {bad[0]} of --canary-images "
                f"({wanted[bad[0]]}); leave out what it cannot classify"
            )
    else:
        wanted = dict(check_set.labels)
        what = "have the label of --canary-labels"
    others = [name for name in names if got[name] != wanted[name]]
    agreed = len(names) - len(others)
    found = f"{agreed} of {len(names)} images {what} (at least {check_set.least_share:g} have to)"
    if agreed < check_set.least_share * len(names):
        shown = "; ".join(
            f"{name}: {got[name]} instead of {wanted[name]}" for name in others[:_SHOWN]
        )
        raise CanaryError(f"{found}: {shown}")
    return found


def _best_labels(entry: ReplicaEntry, images: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """The best label of each image by its name; "error: " and the reason where there is none."""
    found: dict[str, str] = {}
    sizes_bytes = [len(data) for _, data in images]
    with _client(entry) as client:
        for call in calls_of_bounded_size(sizes_bytes, _IMAGES_PER_CALL, _BYTES_PER_CALL):
            some = images[call.start : call.stop]
            try:
                outcomes = client.classify_batch([data for _, data in some])
            except ClientError as error:
                raise CanaryError(f"replica {entry.name} does not answer: {error}") from error
            for (name, _), outcome in zip(some, outcomes, strict=True):
                if isinstance(outcome, ClientError):
                    found[name] = f"{_FAILED}{outcome}"
                else:
                    found[name] = outcome.label
    return found


def _told(entry: ReplicaEntry, client: Client) -> Mapping[str, str]:
    try:
        return client.server_info().settings
    except ClientError as error:
        raise CanaryError(f"replica {entry.name} does not answer: {error}") from error


def _client(entry: ReplicaEntry) -> Client:
    return Client(entry.host, entry.port, call_timeout_s=_TIMEOUT_S)
