"""Class names, and which classes score best."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.cache.bounded_file import UnreadableFileError, read_bounded, why_no_file
from service.errors import ConfigurationError

_log = logging.getLogger(__name__)
_PACKAGED = "imagenet_labels.txt"
_MAX_FILE_BYTES = 10 * 1024 * 1024


class Labels:
    """The name of each class of the model, by class id.

    Attributes:
        names: one name a class.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names

    @classmethod
    def load(cls, path: str | None, num_classes: int) -> Labels:
        """Labels for a model of `num_classes` classes.

        Args:
            path: a UTF-8 file with one label a line, or None for ImageNet's names; a model with
                another number of classes gets "class_0", "class_1", ... then.
            num_classes: classes of the model.

        Raises:
            ConfigurationError: the file cannot be read, or its labels are not as many as the
                model's classes.
        """
        if path is not None:
            names = read_labels(Path(path))
            if len(names) != num_classes:
                raise ConfigurationError(
                    f"{path} has {len(names)} labels, the model has {num_classes} classes; "
                    "give the label file of this model with --labels"
                )
            return cls(names)
        names = (files(__package__) / _PACKAGED).read_text(encoding="utf-8").splitlines()
        if len(names) != num_classes:
            _log.warning(
                "the model has %d classes, not ImageNet's %d: they are named class_0 to class_%d; "
                "give their names with --labels",
                num_classes,
                len(names),
                num_classes - 1,
            )
            names = [f"class_{class_id}" for class_id in range(num_classes)]
        return cls(names)


def read_labels(path: Path) -> list[str]:
    """The labels in a file, one a line.

    Raises:
        ConfigurationError: it cannot be read, is no regular file, has more than 10 MiB, is not
            UTF-8, is empty or has an empty line.
    """
    try:
        text = read_bounded(path, _MAX_FILE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"label file {path} is not UTF-8 text: {error}") from error
    except UnreadableFileError as error:
        reason = why_no_file(path) or f"{path}: {error}"
        raise ConfigurationError(f"label file: {reason}") from error
    names = [line.strip() for line in text.splitlines()]
    if not names:
        raise ConfigurationError(f"label file {path} is empty; it needs one label a line")
    if "" in names:
        raise ConfigurationError(
            f"label file {path}: line {names.index('') + 1} is empty; every line names a class"
        )
    return names


def top_classes(probabilities: npt.NDArray[np.float32], count: int) -> list[int]:
    """Ids of the `count` best classes, best first; of equal scores the lower id comes first.

    Args:
        probabilities: float32 array of shape (classes,).
        count: how many, 1 to classes.
    """
    if count == 1:
        return [int(probabilities.argmax())]
    least = probabilities[np.argpartition(probabilities, -count)[-count]]
    # All that reach the threshold, not argpartition's own choice among equals.
    candidates = np.flatnonzero(probabilities >= least)
    order = np.argsort(-probabilities[candidates], kind="stable")
    return [int(class_id) for class_id in candidates[order[:count]]]
