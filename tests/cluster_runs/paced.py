"""A server whose replicas take a fixed time for an image, whatever the machine does meanwhile."""

from __future__ import annotations

from pathlib import Path

from tests.robustness.colour_model import write_colour_model
from tests.robustness.disturbed_server import disturbed_server


def paced_server(folder: Path, item_ms: float) -> list[str]:
    """Arguments of the service; a replica has one instance, which sleeps `item_ms` an image."""
    settings = f"item_ms = {item_ms:g}\ninstance_num = 1"
    arguments = disturbed_server(folder, write_colour_model(folder), "Paced", settings)
    # Calls wait as long as they have to: the clients are fewer than would be an overload.
    return [*arguments, "--calibrate", "off", "--max-queue-ms", "0"]
