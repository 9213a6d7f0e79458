"""Operators that cut a quadrilateral, such as a line of text, out of a matrix and straighten it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import cv2
import numpy as np

from interfaces.kinds import MOST_SIDE
from pipeline.backends.corners import BOX_KEYS
from pipeline.backends.cpu_operator import CpuOperator, matrix
from pipeline.backends.interface import Item
from pipeline.backends.registry import register


class _Perspective(CpuOperator):
    """Reads the corners that an item brings."""

    # What stands beyond the edge of the image.
    _border: ClassVar[int]

    def _box(self, item: Item) -> Any:
        for key in BOX_KEYS:
            if key in item:
                return item[key]
        raise ValueError(
            f"{type(self).__name__} needs the corners in the item's {' or '.join(BOX_KEYS)}"
        )

    def _straightened(self, image: np.ndarray[Any, Any], corners: Any) -> np.ndarray[Any, Any]:
        """The part between four corners: top left, top right, bottom right, bottom left."""
        try:
            points = np.asarray(corners, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{corners!r}: expected four corners [x, y]") from error
        if points.shape != (4, 2) or not np.isfinite(points).all():
            raise ValueError(
                f"{type(self).__name__} takes four corners [x, y], from the top left clockwise, "
                f"got {corners!r}"
            )
        width, height = (int(math.dist(points[0], points[end])) for end in (1, 3))
        if not (1 <= width <= MOST_SIDE and 1 <= height <= MOST_SIDE):
            raise ValueError(
                f"the corners {points.tolist()} give {width} x {height} pixels: allowed are 1 to "
                f"{MOST_SIDE}"
            )
        target = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        transform = cv2.getPerspectiveTransform(points, target)
        return np.asarray(
            cv2.warpPerspective(image, transform, (width, height), borderMode=self._border)
        )


@register("PerspectiveTransformMat")
class PerspectiveTransformMat(_Perspective):
    """Straightens the quadrilateral under the item's `_box` or `BOX`; black beyond the image.

    It has four corners [x, y] in pixels, from the top left clockwise; the result is as wide as its
    upper side and as high as its left one.
    """

    _border = cv2.BORDER_CONSTANT

    def process(self, item: Item) -> Any:
        """One matrix."""
        return self._straightened(matrix(item), self._box(item))


@register("PerspectiveTransformMats")
class PerspectiveTransformMats(_Perspective):
    """Straightens each quadrilateral of the list under the item's `_box` or `BOX`.

    Beyond the image its edge is repeated.

    The result is a list of matrices, empty where the list is, for a MapReduce.
    """

    _border = cv2.BORDER_REPLICATE

    def process(self, item: Item) -> Any:
        """A list of matrices."""
        image = matrix(item)
        return [self._straightened(image, corners) for corners in self._box(item)]
