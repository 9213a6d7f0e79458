from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[bytes]) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    for index, data in enumerate(photographs):
        (folder / f"{index}.jpg").write_bytes(data)
    return folder
