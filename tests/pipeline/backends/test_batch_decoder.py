"""nvImageCodec's C interface: what it is told, and its decoder on the CPU, which needs no GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from ctypes import sizeof
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import PipelineConfigError
from pipeline.backends import batch_decoder, gpu_decoding
from pipeline.backends.batch_decoder import (
    CPU_ONLY,
    HW_GPU_ONLY,
    HYBRID_CPU_GPU,
    BatchDecoder,
    Block,
)
from pipeline.backends.nvimgcodec_library import Library, NvImageCodecError, why_unusable
from pipeline.backends.nvimgcodec_structures import STRUCTURES
from service.images.decoding import decode_bgr

CPU = torch.device("cpu")
needs_library = pytest.mark.skipif(bool(why_unusable()), reason=why_unusable())


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


@pytest.fixture
def decoder(library: Library) -> Iterator[BatchDecoder]:
    made = BatchDecoder(library, CPU, CPU_ONLY, "bgr")
    yield made
    made.close()


def pixels(block: Block) -> np.ndarray:
    return block.tensor().numpy()


def assert_close(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.shape == wanted.shape
    assert (np.abs(got.astype(int) - wanted) <= 2).mean() >= 0.99


def test_another_version_is_refused_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "0.10.1.7")
    monkeypatch.setattr(gpu_decoding, "_library", gpu_decoding._library.__wrapped__)
    with pytest.raises(
        PipelineConfigError, match=r"nvImageCodec 0\.10\.1\.7 .* 0\.9 is needed \(pip install "
    ):
        gpu_decoding._decoder(torch.device("cuda", 0), "rgb")


def test_memory_grows_only_where_an_image_needs_more() -> None:
    block = Block()
    block.make_room(300, 400, CPU)
    first = block.address
    block.make_room(400, 420, CPU)
    assert block.tensor().shape == (400, 420, 3)
    assert (block.address, block.tensor().data_ptr()) == (first, first)
    block.make_room(1000, 1000, CPU)
    block.tensor().fill_(7)
    assert block.tensor().numel() == 3_000_000


@needs_library
def test_structures_and_numbers_are_those_of_the_header(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    package = find_spec("nvidia.nvimgcodec")
    assert package is not None
    assert package.origin is not None
    include = Path(package.origin).parent / "include"
    if compiler is None or not include.is_dir():
        pytest.skip("needs a C compiler and the package's headers")
    ours = {
        "NVIMGCODEC_BACKEND_KIND_CPU_ONLY": CPU_ONLY,
        "NVIMGCODEC_BACKEND_KIND_HYBRID_CPU_GPU": HYBRID_CPU_GPU,
        "NVIMGCODEC_BACKEND_KIND_HW_GPU_ONLY": HW_GPU_ONLY,
        "NVIMGCODEC_SAMPLEFORMAT_I_RGB": batch_decoder._SAMPLE_FORMATS["rgb"],
        "NVIMGCODEC_SAMPLEFORMAT_I_BGR": batch_decoder._SAMPLE_FORMATS["bgr"],
    }
    for name in (
        "BUFFER_KIND_STRIDED_DEVICE",
        "BUFFER_KIND_STRIDED_HOST",
        "COLORSPEC_SRGB",
        "DEVICE_CPU_ONLY",
        "LOAD_HINT_POLICY_FIXED",
        "PROCESSING_STATUS_SUCCESS",
        "SAMPLE_DATA_TYPE_UINT8",
    ):
        prefix = "NVIMGCODEC_IMAGE_" if name.startswith("BUFFER") else "NVIMGCODEC_"
        ours[prefix + name] = getattr(batch_decoder, f"_{name}")
    for structure in STRUCTURES:
        name = structure.c_name
        words = re.findall("[A-Z][a-z]+", name)
        ours[f"NVIMGCODEC_STRUCTURE_TYPE_{'_'.join(words).upper()}"] = structure.struct_type_id
        ours[f"sizeof({name})"] = sizeof(structure)
        for field, *_ in structure._fields_:
            ours[f"offsetof({name}, {field})"] = getattr(structure, field).offset
    # All that the header needs of CUDA's.
    (tmp_path / "cuda_runtime_api.h").write_text("typedef struct CUstream_st *cudaStream_t;\n")
    source, program = tmp_path / "numbers.c", tmp_path / "numbers"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <nvimgcodec.h>\n"
        f"long all[] = {{{', '.join(ours)}}};\n"
        "int main(void) { for (size_t i = 0; i < sizeof all / sizeof *all; ++i)"
        ' printf("%ld ", all[i]); }\n'
    )
    subprocess.run([compiler, f"-I{tmp_path}", f"-I{include}", source, "-o", program], check=True)
    printed = subprocess.run([program], check=True, capture_output=True).stdout
    assert dict(zip(ours, map(int, printed.split()), strict=True)) == ours


@needs_library
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_pixels_are_those_of_opencv(library: Library, photographs: list[bytes], color: str) -> None:
    decoder = BatchDecoder(library, CPU, CPU_ONLY, color)
    for batch in ([*photographs], [memoryview(one) for one in photographs[:2]]):
        blocks = [Block() for _ in batch]
        assert decoder.decode(batch, blocks) == [True] * len(batch)
        for block, one in zip(blocks, batch, strict=True):
            wanted = decode_bgr(one)
            assert_close(pixels(block), wanted if color == "bgr" else wanted[:, :, ::-1])
    decoder.close()


@needs_library
def test_damaged_images_leave_their_neighbours_alone(
    decoder: BatchDecoder, photographs: list[bytes]
) -> None:
    good = photographs[0]
    for bad in (b"", b"no image", b"\xff\xd8\xff\xe0garbage", good[:200]):
        batch = [good, bad, photographs[1]]
        blocks = [Block() for _ in batch]
        assert decoder.decode(batch, blocks) == [True, False, True]
        assert_close(pixels(blocks[0]), decode_bgr(good))
        assert_close(pixels(blocks[2]), decode_bgr(photographs[1]))
        decoder.end_pass()


@needs_library
def test_encoded_images_are_kept_until_the_pass_is_over(
    decoder: BatchDecoder, photographs: list[bytes]
) -> None:
    memory = bytearray(photographs[0])
    decoder.decode([memoryview(memory).toreadonly()], [Block()])
    with pytest.raises(BufferError):
        memory.clear()
    decoder.end_pass()
    memory.clear()


@needs_library
def test_a_decoder_that_is_not_there_is_refused(library: Library) -> None:
    told = r"nvimgcodecDecoderCreate failed \(status \d+, [a-z ]+\)"
    with pytest.raises(NvImageCodecError, match=told):
        BatchDecoder(library, CPU, HW_GPU_ONLY, "rgb")
