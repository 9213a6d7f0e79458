"""The options of a server whose handler runs on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace

from interfaces.kinds import COUNT, SECONDS_OR_0, Bounds, Kind
from interfaces.options import option, out_of_bounds
from service.errors import ConfigurationError

LOCAL = "local"
"""The address of a cluster that is this machine alone, and ends with the server."""

_MOST_REPLICAS = 10_000
_REPLICAS = replace(COUNT, bounds=Bounds(1, _MOST_REPLICAS))
_GPUS = Kind("number", float, Bounds(0, 64), metavar="G")
_CPUS = Kind("number", float, Bounds(0, 1024, is_open=True), metavar="C")
_SCALE_DOWN_DELAY_S = 60.0
_OF_CLUSTER = (
    "replicas",
    "min_replicas",
    "max_replicas",
    "scale_down_delay_s",
    "cpus_per_replica",
)
_WITHOUT_CLUSTER = "says how the handler runs on a cluster; give --cluster, too"


@dataclass(frozen=True)
class ClusterSettings:
    """Where replicas of the handler run, and how many.

    Raises:
        ConfigurationError: they contradict each other.
    """

    cluster: str | None = option(
        None,
        "run replicas of the handler on the Ray cluster at this address, such as 10.0.0.1:6379, "
        "behind this port; local starts a Ray on this machine, which ends with the server; needs "
        "the extra 'cluster'",
        metavar="ADDRESS|local",
        default_text="the handler runs in this server",
        group="cluster",
    )
    replicas: int | None = option(
        None, "how many replicas there are", _REPLICAS, default_text="1", group="cluster"
    )
    min_replicas: int | None = option(
        None,
        "with --max-replicas: fewest replicas, when there is little to do",
        _REPLICAS,
        default_text="1",
        group="cluster",
    )
    max_replicas: int | None = option(
        None,
        "most replicas; there are as many as keep the expected wait of an image below a third of "
        "--max-queue-ms",
        _REPLICAS,
        default_text="as many as --replicas says",
        group="cluster",
    )
    scale_down_delay_s: float | None = option(
        None,
        "with --max-replicas: for how long there have to be too many replicas before some end; "
        "longer spares their start where the load comes and goes",
        SECONDS_OR_0,
        default_text=f"{_SCALE_DOWN_DELAY_S:g}",
        group="cluster",
    )
    gpus_per_replica: float = option(
        0.0,
        "GPUs that Ray reserves for each replica; a part of one, such as 0.5, is shared",
        _GPUS,
        group="cluster",
    )
    cpus_per_replica: float | None = option(
        None,
        "cores that Ray reserves for each replica, on which it counts",
        _CPUS,
        default_text="1; with local, this machine's shared out",
        group="cluster",
    )

    def __post_init__(self) -> None:
        for problem in out_of_bounds(self):
            raise ConfigurationError(problem)
        if self.cluster is None:
            for name in _OF_CLUSTER:
                if getattr(self, name) is not None:
                    raise ConfigurationError(f"--{name.replace('_', '-')} {_WITHOUT_CLUSTER}")
            if self.gpus_per_replica:
                raise ConfigurationError(f"--gpus-per-replica {_WITHOUT_CLUSTER}")
            return
        if not self.cluster.strip():
            raise ConfigurationError("--cluster takes the address of a Ray cluster, or local")
        if self.replicas is not None and (self.min_replicas or self.max_replicas):
            raise ConfigurationError(
                "--replicas is a fixed number, and --min-replicas and --max-replicas are the "
                "bounds of one that changes; give either"
            )
        if self.min_replicas is not None and self.max_replicas is None:
            raise ConfigurationError("--min-replicas goes with --max-replicas; give both")
        if self.scale_down_delay_s is not None and self.max_replicas is None:
            raise ConfigurationError(
                "--scale-down-delay-s goes with --max-replicas: otherwise the number never changes"
            )
        if self.max_replicas is not None and self.fewest > self.max_replicas:
            raise ConfigurationError(
                f"--min-replicas {self.fewest} is above --max-replicas {self.max_replicas}"
            )

    @property
    def is_local(self) -> bool:
        """Whether the cluster is this machine alone."""
        return self.cluster == LOCAL

    @property
    def fewest(self) -> int:
        """How many replicas there are to be at least, and before the first client is let in."""
        return (self.replicas if self.max_replicas is None else self.min_replicas) or 1

    @property
    def most(self) -> int:
        """How many replicas there are to be at most."""
        return self.max_replicas or self.fewest

    @property
    def scale_down_after_s(self) -> float:
        """For how long there have to be too many replicas before some end."""
        return _SCALE_DOWN_DELAY_S if self.scale_down_delay_s is None else self.scale_down_delay_s

    @property
    def in_words(self) -> str:
        """How many there are to be, and why."""
        if self.max_replicas is None:
            return f"--replicas {self.fewest}"
        return f"--min-replicas {self.fewest} --max-replicas {self.max_replicas}"
