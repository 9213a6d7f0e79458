"""The settings that a TOML file may give, how each is read, and what it means.

A backend declares the settings that it reads; the scheduler's own are `SCHEDULING`. A setting that
is declared by none is refused at load, so that a typo never passes silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from interfaces.kinds import MOST_SIDE
from interfaces.names import shown
from pipeline.errors import PipelineConfigError
from pipeline.language.graph import Mapped

REQUIRED = object()
DEFAULT_BACKEND = "Identity"
"""What a node without a backend runs."""
MAX_COUNT = 10**12
"""The largest whole number that a setting may have."""
# As many as NumPy's arrays have.
_MOST_DIMENSIONS = 64
# Each is a thread.
_MOST_INSTANCES = 1024


@dataclass(frozen=True)
class Setting:
    """One key of a node.

    Attributes:
        name: the key, as torchpipe spells it.
        read: turns the TOML value into the typed one; raises ValueError or TypeError, or
            OverflowError for what is too large.
        expected: what `read` accepts, for the error message.
        default: the value where neither the node nor a global gives one; REQUIRED if it must.
        help: what it says, in a few words.
        unit: of its value, or "".
        example: a value for the example of what reads it; None if that goes without.
    """

    name: str
    read: Callable[[Any], Any]
    expected: str
    default: Any = None
    help: str = field(default="", kw_only=True)
    unit: str = field(default="", kw_only=True)
    example: Any = field(default=None, kw_only=True)

    def parse(self, value: Any, where: str) -> Any:
        """The typed value; PipelineConfigError says what was given and what is allowed."""
        try:
            return self.read(value)
        except (TypeError, ValueError, OverflowError) as error:
            limit = f", at most {MAX_COUNT}" if isinstance(error, OverflowError) else ""
            raise PipelineConfigError(
                f"{where}: {self.name} = {shown(value)}: expected {self.expected}{limit}"
            ) from error


@dataclass(frozen=True)
class BatchShape:
    """`min` or `max`: rows of a batch and, where given, the shape of one row.

    Attributes:
        rows: the same for all inputs of the model.
        item_shapes: of each input, in the model's order, () where only rows were given; empty
            where that is so of all.
    """

    rows: int
    item_shapes: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        shapes = self.item_shapes or ((),)
        return ",".join("x".join(map(str, (self.rows, *shape))) for shape in shapes)


def read_count(value: Any) -> int:
    """A whole number of at least 1, also as text."""
    count = read_size(value)
    if count < 1:
        raise ValueError(value)
    return count


def read_size(value: Any) -> int:
    """A whole number of at least 0, also as text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(value)
    size = int(value)
    if size < 0:
        raise ValueError(value)
    if size > MAX_COUNT:
        raise OverflowError(value)
    return size


def whole_number(lowest: int, highest: int) -> Callable[[Any], int]:
    """A reader of whole numbers from `lowest` to `highest`, also as text."""

    def read(value: Any) -> int:
        try:
            number = read_size(value)
        except OverflowError:
            # `expected` names the upper bound.
            raise ValueError(value) from None
        if not lowest <= number <= highest:
            raise ValueError(value)
        return number

    return read


# An image of the largest sides takes 201 MB, and a larger one is no use to a classifier.
read_pixels = whole_number(0, MOST_SIDE)
read_side = whole_number(1, MOST_SIDE)
read_byte = whole_number(0, 255)


def read_dimension(value: Any) -> int:
    """The number of a tensor's dimension, also as text; negative ones count from the end."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(value)
    dimension = int(value)
    if not -_MOST_DIMENSIONS <= dimension < _MOST_DIMENSIONS:
        raise ValueError(value)
    return dimension


def read_dimensions(value: Any) -> tuple[int, ...]:
    """Numbers of dimensions, all different: "0,2,3,1" or [0, 2, 3, 1]."""
    parts = value.split(",") if isinstance(value, str) else value
    dimensions = tuple(map(read_dimension, parts if isinstance(parts, list) else [parts]))
    if not dimensions or len(set(dimensions)) < len(dimensions):
        raise ValueError(value)
    return dimensions


def read_switch(value: Any) -> bool:
    """True or false, also as text, as it is in an expression's parentheses, or 1 or 0."""
    word = str(value).lower()
    if word not in ("true", "false", "1", "0"):
        raise TypeError(value)
    return word in ("true", "1")


def read_devices(value: Any) -> tuple[int, ...]:
    """Numbers of GPUs, all different: 0, "0,1" or [0, 1]."""
    parts = value.split(",") if isinstance(value, str) else value
    devices = tuple(read_size(part) for part in (parts if isinstance(parts, list) else [parts]))
    if not devices or len(set(devices)) < len(devices):
        raise ValueError(value)
    return devices


def read_milliseconds(value: Any) -> float:
    """A number of at least 0, also as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(value)
    milliseconds = float(value)
    if not 0 <= milliseconds < float("inf"):
        raise ValueError(value)
    return milliseconds


def read_text(value: Any) -> str:
    """Text that is not empty."""
    if not isinstance(value, str):
        raise TypeError(value)
    if not value.strip():
        raise ValueError(value)
    return value


def read_floats(value: Any) -> tuple[float, ...]:
    """Numbers, as a list or as text with commas: "123.675, 116.28, 103.53"."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(float(part) for part in parts)


def read_batch_shape(value: Any) -> BatchShape:
    """Rows, or rows and the shape of a row, an input each: 4, "4,4", "4x3x224x224,4x10,4"."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(value)
    inputs = [[read_count(part) for part in one.split("x")] for one in str(value).split(",")]
    rows = inputs[0][0]
    shapes = tuple(tuple(shape) for _, *shape in inputs)
    if any(first != rows for first, *_ in inputs):
        raise ValueError(value)
    return BatchShape(rows, shapes if any(shapes) else ())


def read_range(value: Any) -> tuple[int, int]:
    """Fewest and most items: "1,4"."""
    fewest, most = (read_count(part) for part in read_text(value).split(","))
    if fewest > most:
        raise ValueError(value)
    return fewest, most


def read_names(value: Any) -> tuple[str, ...]:
    """Node names with commas between them."""
    names = tuple(name.strip() for name in read_text(value).split(","))
    if not all(names):
        raise ValueError(value)
    return names


def read_map(value: Any) -> tuple[Mapped, ...]:
    """What a join takes from whom: "B[result:x],C[result:data]".

    "[result:data]" leaves out from whom: the only node before it.
    """
    entries = []
    *nodes, end = read_text(value).split("]")
    for number, node in enumerate(nodes):
        before, _, pairs = node.lstrip().partition("[")
        comma, name = before[:1] if number else "", before[1:] if number else before
        name = name.strip()
        if comma != ("," if number else "") or set(name) & set(",:"):
            raise ValueError(value)
        if not name and (number or len(nodes) > 1):
            raise ValueError(value)
        for pair in pairs.split(","):
            taken, given = (key.strip() for key in pair.split(":"))
            if not taken or not given or "[" in pair:
                raise ValueError(value)
            entries.append(Mapped(name, taken, given))
    if end.strip() or not entries or len({entry.given for entry in entries}) < len(entries):
        raise ValueError(value)
    return tuple(entries)


def choice(*allowed: str) -> Callable[[Any], str]:
    """A reader that accepts these words in any case and gives them in lower case."""

    def read(value: Any) -> str:
        word = read_text(value).lower()
        if word not in allowed:
            raise ValueError(value)
        return word

    return read


SCHEDULING = (
    Setting(
        "backend",
        read_text,
        "a backend expression such as S[DecodeMat,ResizeMat]",
        DEFAULT_BACKEND,
        help="what its instances run",
    ),
    Setting(
        "next",
        read_names,
        "the names of the nodes that come after this one",
        (),
        help="where items go then; without it to the caller",
    ),
    Setting(
        "map",
        read_map,
        'keys by node, each once: "B[result:x],C[result:data]"',
        (),
        help="what it takes from the nodes before it",
    ),
    Setting(
        "filter",
        read_text,
        "the name of a filter, such as swap or or",
        None,
        help="whether an item runs through the node",
    ),
    Setting("or", read_switch, "true or false", False, help='the same as filter = "or"'),
    Setting(
        "instance_num",
        whole_number(1, _MOST_INSTANCES),
        f"a whole number from 1 to {_MOST_INSTANCES}",
        1,
        help="instances, each in a thread of its own",
    ),
    Setting(
        "batching_timeout",
        read_milliseconds,
        "milliseconds, at least 0",
        2.0,
        help="longest wait for min items, and for callers that come back",
        unit="ms",
    ),
    Setting(
        "device_id",
        read_devices,
        'a GPU\'s number, or several: "0,1"',
        (0,),
        help="the GPUs, each with instance_num instances",
    ),
    Setting(
        "profile_stages",
        read_switch,
        "true or false",
        False,
        help="also the time of each backend; costs throughput",
    ),
    Setting(
        "shared_engine",
        choice("auto", "always", "never"),
        '"auto", "always" or "never"',
        "auto",
        help="whether several workers leave the node to one engine process",
    ),
)
