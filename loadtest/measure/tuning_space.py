"""What `tune` may change, within which bounds, and the file of a setting."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from interfaces.tuning import Tunable

_MOST_INSTANCES = 8
_MOST_INSTANCES_ON_GPU = 4
# Batches on a CPU gain little and make every row wait for all; on a GPU they are what gains.
_ROWS = (1, 2, 4, 8)
_ROWS_ON_GPU = (1, 2, 4, 8, 16, 32, 64)
_TIMEOUTS_MS = (0, 1, 2, 5, 10, 20)
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Setting:
    """One setting of the pipeline; names as the file and the service have them.

    Attributes:
        instance_num: of the engine's node.
        max: rows of the largest batch.
        batching_timeout: ms.
        threads: instances of each node that decodes and prepares; 0 where there is none.
        workers: server processes.
    """

    instance_num: int
    max: int
    batching_timeout: float
    threads: int
    workers: int

    def as_record(self) -> dict[str, Any]:
        """What run.json and Optuna know of it."""
        return asdict(self)

    def __str__(self) -> str:
        values = {name: value for name, value in asdict(self).items() if name != "threads" or value}
        return ", ".join(f"{name} {value:g}" for name, value in values.items())


def default_setting(tunable: Tunable, workers: int) -> Setting:
    """What the service runs by itself, in so many processes."""
    return Setting(
        tunable.instance_num,
        tunable.most_rows,
        tunable.batching_timeout_ms,
        tunable.threads,
        workers,
    )


def choices(default: Setting, slo_ms: float, cores: int, *, on_gpu: bool) -> dict[str, list[Any]]:
    """Name of a setting to the values that are tried, ascending; the default's are among them.

    Args:
        default: the setting that the others are measured beside.
        slo_ms: limit of the TP99; no batch may wait for longer.
        cores: cores of the servers; what keeps one busy gets one a core at most.
        on_gpu: whether the engine runs on a GPU.
    """
    most = _MOST_INSTANCES_ON_GPU if on_gpu else min(cores, _MOST_INSTANCES)
    found: dict[str, list[Any]] = {
        "instance_num": [*range(1, most + 1)],
        "max": [*(_ROWS_ON_GPU if on_gpu else _ROWS)],
        "batching_timeout": [ms for ms in _TIMEOUTS_MS if ms < slo_ms],
        "threads": [count for count in _powers(cores) if default.threads],
        "workers": _powers(min(cores, _MOST_WORKERS)),
    }
    record = default.as_record()
    return {name: sorted({*values, record[name]}) for name, values in found.items()}


def _powers(most: int) -> list[int]:
    """1, 2, 4 and so on, up to that."""
    return [2**power for power in range(most.bit_length()) if 2**power <= most]


def document_of(tunable: Tunable, setting: Setting) -> dict[str, Any]:
    """The pipeline's file with a setting, as TOML's types."""
    rows = ",".join(f"{setting.max}{shape}" for shape in tunable.shapes)
    timeout = setting.batching_timeout
    of_node: dict[str, dict[str, Any]] = {
        tunable.engine_node: {
            "instance_num": setting.instance_num,
            "max": rows,
            "batching_timeout": int(timeout) if timeout == int(timeout) else timeout,
        },
        **({name: {"instance_num": setting.threads} for name in tunable.thread_nodes}),
    }
    return {
        key: {**value, **of_node.get(key, {})} if isinstance(value, dict) else value
        for key, value in tunable.document.items()
    }
