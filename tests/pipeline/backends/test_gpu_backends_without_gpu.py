"""What a host without an NVIDIA GPU says of the operators that need one."""

from __future__ import annotations

import pytest
import torch

from pipeline import PipelineConfigError, pipe
from pipeline.config import parse_config

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a GPU")


@pytest.mark.parametrize(
    ("backend", "instead"),
    [
        ("DecodeTensor", "DecodeMat"),
        ("ResizeTensor", "ResizeMat"),
        ("ResizeTensorV1", "ResizeMat"),
        ("PPLResizeTensor", "ResizeMat"),
        ("CvtColorTensor", "CvtColorMat"),
        ("cvtColorTensor", "CvtColorMat"),
        ("CropTensor", "CropMat"),
        ("CopyMakeBorderTensor", "cv2.copyMakeBorder"),
        ("GpuTensor", "the tensor as it is"),
        ("CpuTensor", "the tensor as it is"),
    ],
)
def test_an_operator_names_what_does_the_same_on_the_cpu(backend: str, instead: str) -> None:
    with pytest.raises(PipelineConfigError, match=rf"needs an NVIDIA GPU .* {instead}"):
        pipe({"node": {"backend": f"S[{backend}]"}})


@pytest.mark.parametrize(
    ("given", "devices"), [(0, (0,)), ("0,1", (0, 1)), ("2", (2,)), ([3, 1], (3, 1))]
)
def test_devices_are_numbers(given: object, devices: tuple[int, ...]) -> None:
    document = {"device_id": given, "node": {"backend": "GpuTensor"}}
    assert parse_config(document).nodes["node"].device_ids == devices


@pytest.mark.parametrize("given", ["", "0,0", -1, "a", [], True, 1.5])
def test_what_are_no_devices_is_refused(given: object) -> None:
    with pytest.raises(PipelineConfigError, match="device_id"):
        parse_config({"node": {"backend": "GpuTensor", "device_id": given}})
