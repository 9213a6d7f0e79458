"""The load and the servers of a measurement; attributes are the options of the same name."""

from __future__ import annotations

from dataclasses import dataclass

from interfaces.service import PORT

AUTO = "auto"
# fp16 and bf16 round; how much of it reaches a score grows with the depth of the model.
SCORE_TOLERANCE = {"fp32": 0.001, "fp16": 0.01, "bf16": 0.02, "int8": 0.05}
"""Of two scores for one image, by precision."""
# A GPU's decoder spreads the colour of neighbouring pixels and rounds otherwise than the CPU's.
# Photographs of the set whose colour is spread the coarsest way differ by up to 0.07.
DECODER_TOLERANCE = 0.1
"""The same between variants that decode differently."""
MASTER_PORT = 5557
"""Where workers look for their master; that of Locust's masters."""
WINDOW_S = 5.5
"""Length of the windows of a comparison, in s."""


@dataclass(frozen=True)
class LoadSettings:
    """The load; `duration_s` or `total_number` ends the window, the other one is None.

    Attributes:
        wire: how the clients talk; one of `loadtest.load.wires.WIRES`.
        arrivals_per_s: requests a second of an open loop, which come whatever becomes of those
            before them, from `request_client` generators; None for clients that wait for their
            answers.
        arrivals: when they come; one of `loadtest.load.arrivals.ARRIVALS`.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    request_client: int = 10
    request_batch: int = 1
    client_processes: int = 1
    seed: int = 0
    warmup_s: float = 1.0
    duration_s: float | None = 10.0
    total_number: int | None = None
    request_timeout_s: float = 30.0
    wire: str = "thrift"
    arrivals_per_s: float | None = None
    arrivals: str = "poisson"

    @property
    def title(self) -> str:
        """How much it is, in words."""
        if self.arrivals_per_s is not None:
            return f"{self.arrivals_per_s:g} requests/s ({self.arrivals})"
        return "1 client" if self.request_client == 1 else f"{self.request_client} clients"


@dataclass(frozen=True)
class ServerOptions:
    """How every variant is to run; the first server gets `port`.

    Attributes:
        model_args: what else the model needs, as the service and the upper bound spell it.
        image_args: how images come to the model's size, likewise; a pipeline's TOML file says that
            itself.
        skip_bad_images: whether images that cannot be used are left out.
        config: the pipeline's TOML file, or None for the shipped one.
    """

    engine: str = AUTO
    precision: str = "fp32"
    model_args: tuple[str, ...] = ()
    image_args: tuple[str, ...] = ()
    skip_bad_images: bool = False
    calibration_images: str | None = None
    config: str | None = None
    port: int = PORT
    launch_prefix: tuple[str, ...] = ()
    ready_timeout_s: float = 180.0
