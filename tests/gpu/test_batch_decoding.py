"""nvImageCodec's C interface on the GPU, beside NVIDIA's Python binding of the same library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.backends import gpu_decoding
from pipeline.backends.batch_decoder import HW_GPU_ONLY, HYBRID_CPU_GPU, BatchDecoder, Block
from pipeline.backends.gpu_decoding import DecodeTensor
from pipeline.backends.gpu_image import DecodedImage
from pipeline.backends.interface import FAILURE_KEY, InstanceConfig, SharedResources

codec = pytest.importorskip("nvidia.nvimgcodec")

SAMPLINGS = ("444", "422", "440", "420")
KINDS = ("HYBRID_CPU_GPU", "HW_GPU_ONLY")


@pytest.fixture(scope="module")
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="module")
def jpegs(photographs: list[bytes], orientations: list[bytes]) -> dict[str, bytes]:
    """Of all samplings and orientations, grey, with restart markers, and of odd sizes."""
    matrix = cv2.imdecode(np.frombuffer(photographs[0], np.uint8), cv2.IMREAD_COLOR)

    def encoded(image: np.ndarray, *flags: int) -> bytes:
        return cv2.imencode(".jpg", image, flags)[1].tobytes()

    found = {f"photograph {number}": data for number, data in enumerate(photographs)}
    for name in SAMPLINGS:
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
        found[name] = encoded(matrix, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
    found |= {f"orientation {number}": data for number, data in enumerate(orientations, 1)}
    found["grey"] = encoded(cv2.cvtColor(matrix, cv2.COLOR_BGR2GRAY))
    found["restart markers"] = encoded(matrix, cv2.IMWRITE_JPEG_RST_INTERVAL, 4)
    found["odd size"] = encoded(matrix[:201, :133])
    found["one pixel"] = encoded(matrix[:1, :1])
    return found


def decoder_of(kind: str, device: torch.device, color: str) -> BatchDecoder:
    numbers = {"HYBRID_CPU_GPU": HYBRID_CPU_GPU, "HW_GPU_ONLY": HW_GPU_ONLY}
    try:
        return BatchDecoder(gpu_decoding._library(), device, numbers[kind], color)
    except RuntimeError as error:
        pytest.skip(f"this GPU has no such decoder: {error}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_pixels_are_those_of_the_python_binding(
    device: torch.device, jpegs: dict[str, bytes], kind: str, color: str
) -> None:
    ours = decoder_of(kind, device, color)
    theirs = codec.Decoder(
        device_id=device.index,
        max_num_cpu_threads=1,
        backends=[codec.Backend(getattr(codec.BackendKind, kind))],
    )
    params = codec.DecodeParams(sample_format=getattr(codec.SampleFormat, f"I_{color.upper()}"))
    stream = torch.cuda.current_stream(device)
    blocks = [Block() for _ in jpegs]
    # The second time backwards, into memory that other images have been in.
    for names in ([*jpegs], [*reversed(jpegs)]):
        batch = [jpegs[name] for name in names]
        decoded = ours.decode(batch, blocks)
        wanted = theirs.decode(
            [codec.CodeStream(np.frombuffer(one, np.uint8)) for one in batch],
            params=params,
            cuda_stream=stream.cuda_stream,
        )
        stream.synchronize()
        assert decoded == [image is not None for image in wanted] == [True] * len(batch)
        for name, block, image in zip(names, blocks, wanted, strict=True):
            assert torch.equal(block.tensor(), torch.as_tensor(image, device=device)), name
        ours.end_pass()
    ours.close()


@pytest.fixture
def operator(device: torch.device) -> Iterator[DecodeTensor]:
    made = DecodeTensor()
    settings: dict[str, Any] = {"color": "bgr"}
    made.init(InstanceConfig("node", settings, 1, "auto", SharedResources(), {}, device.index))
    yield made
    made.close()


def test_damaged_images_change_no_neighbour_and_cost_no_memory(
    operator: DecodeTensor, photographs: list[bytes]
) -> None:
    good = photographs[0]
    middle = bytearray(good)
    middle[len(middle) // 2 : len(middle) // 2 + 400] = bytes(400)
    # What ends as a JPEG does reaches the decoder.
    bad = [b"\xff\xd8\xff\xe0no image\xff\xd9", good[:300] + b"\xff\xd9", bytes(middle)]
    wanted, addresses = None, set()
    for turn in range(4 * len(bad)):
        items = [{TASK_DATA_KEY: data} for data in (good, bad[turn % 3], good)]
        operator.forward(items)
        torch.cuda.current_stream().synchronize()
        for item in (items[0], items[2]):
            image = item[TASK_RESULT_KEY]
            assert isinstance(image, DecodedImage)
            if turn >= len(bad):
                addresses.add(image.pixels.address)
            wanted = image.tensor() if wanted is None else wanted
            assert torch.equal(image.tensor(), wanted)
        # A node hands a failure on, and lets go of the batch that its traceback leads to.
        items[1].pop(FAILURE_KEY, None)
        del image, item, items
        operator.end_pass()
    # Those of three blocks, once there are so many; in whichever order they come back.
    assert len(addresses) <= 3


def test_an_image_that_is_still_needed_is_not_written_again(
    operator: DecodeTensor, photographs: list[bytes]
) -> None:
    kept = {TASK_DATA_KEY: photographs[0]}
    operator.forward([kept])
    before = kept[TASK_RESULT_KEY].tensor()
    operator.end_pass()
    for _ in range(3):
        operator.forward([{TASK_DATA_KEY: photographs[1]}])
        torch.cuda.current_stream().synchronize()
        operator.end_pass()
    assert torch.equal(kept[TASK_RESULT_KEY].tensor(), before)
