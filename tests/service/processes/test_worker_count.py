"""The rule behind `--workers auto`, over hosts and loads."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.sizes import size_text
from service.handlers.process_load import ProcessLoad
from service.options.server_settings import ServerSettings
from service.processes.placement import share_of_cores
from service.processes.worker_count import (
    WORKER_BYTES,
    fitting_workers,
    is_always_one,
    memory_bytes,
)

CORES = (6, 8, 16, 64)
GB = 10**9
WHOLE = ServerSettings()

CPU = ProcessLoad(model_bytes=100_000_000)
ENGINE_ON_GPU = ProcessLoad(gpus=1, shares_engine=True)
ALL_ON_GPU = replace(ENGINE_ON_GPU, decodes_on_gpu=True)


@pytest.mark.parametrize(
    ("load", "counts"),
    [
        # As many as CORES has.
        (CPU, (1, 2, 4, 16)),
        (ENGINE_ON_GPU, (2, 2, 5, 21)),
        (ALL_ON_GPU, (3, 4, 8, 8)),
        (replace(ENGINE_ON_GPU, gpus=2), (2, 2, 4, 20)),
        (replace(ALL_ON_GPU, gpus=2), (2, 4, 8, 16)),
        (replace(ALL_ON_GPU, gpus=3), (3, 3, 6, 24)),
        (replace(ENGINE_ON_GPU, gpus=8), (2, 2, 4, 16)),
        (replace(ALL_ON_GPU, gpus=8), (2, 4, 8, 32)),
        # An engine of its own on the GPU in each process.
        (ProcessLoad(gpus=1), (1, 1, 1, 1)),
        (ProcessLoad(gpus=2), (2, 2, 2, 2)),
        (ProcessLoad(gpus=8), (2, 2, 4, 8)),
        # What the user's file asks for in each process.
        (replace(CPU, instances=1), (1, 2, 4, 16)),
        (replace(CPU, instances=8), (1, 1, 2, 8)),
        (replace(CPU, instances=100), (1, 1, 1, 1)),
        (replace(ENGINE_ON_GPU, instances=4), (1, 2, 4, 16)),
    ],
)
def test_hosts_with_enough_memory(load: ProcessLoad, counts: tuple[int, ...]) -> None:
    chosen = {cores: fitting_workers(load, cores, 200 * GB, WHOLE) for cores in CORES}
    assert {cores: count.workers for cores, count in chosen.items()} == dict(
        zip(CORES, counts, strict=True)
    )
    for cores, count in chosen.items():
        assert count.reason.startswith(f"auto: {cores} cores, ")
        assert f" GiB at most of {size_text(200 * GB)} free" in count.reason


@pytest.mark.parametrize(
    ("load", "free_gb", "workers"),
    [
        (CPU, 100, 16),
        (CPU, 8, 5),
        (CPU, 4, 2),
        (CPU, 1, 1),
        (CPU, 0, 1),
        (replace(CPU, model_bytes=2 * GB), 20, 2),
        (replace(CPU, model_bytes=2 * GB), 40, 4),
        (ALL_ON_GPU, 100, 8),
        (ALL_ON_GPU, 6, 3),
        (replace(ENGINE_ON_GPU, gpus=2), 16, 10),
        (replace(ENGINE_ON_GPU, gpus=4), 20, 8),
    ],
)
def test_little_memory(load: ProcessLoad, free_gb: int, workers: int) -> None:
    count = fitting_workers(load, 64, free_gb * GB, WHOLE)
    assert count.workers == workers
    if workers < fitting_workers(load, 64, math.inf, WHOLE).workers:
        assert "memory holds no more than " in count.reason


def test_the_limits_that_a_user_sets_count() -> None:
    """They are what images and messages may take, in each process where they cannot be shared."""
    generous = replace(WHOLE, max_decoded_bytes=50 * GB)
    assert fitting_workers(CPU, 16, 60 * GB, WHOLE).workers == 4
    assert fitting_workers(CPU, 16, 40 * GB, generous).workers == 1
    small = replace(WHOLE, max_decoded_bytes=10**8, max_buffered_bytes=WHOLE.max_frame_bytes)
    assert memory_bytes(ProcessLoad(), 4, small) < memory_bytes(ProcessLoad(), 4, WHOLE)


def test_few_cores_always_have_one() -> None:
    assert [cores for cores in range(1, 10) if is_always_one(cores)] == [1, 2, 3, 4, 5]


def test_it_says_what_decided() -> None:
    assert str(fitting_workers(CPU, 16, 100 * GB, WHOLE)) == (
        "4 (auto: 16 cores, decoding and engine on the CPU: one for each 4 cores; "
        "5.6 GiB at most of 93.1 GiB free)"
    )
    uneven = fitting_workers(replace(ENGINE_ON_GPU, gpus=2), 16, 100 * GB, WHOLE)
    assert "engine on 2 GPUs: one for each 3 cores; 4 share 2 GPUs evenly" in uneven.reason
    gpu = fitting_workers(ALL_ON_GPU, 64, 100 * GB, WHOLE)
    assert "decoding and engine on 1 GPU: 8 keep a GPU busy that decodes" in gpu.reason
    own = fitting_workers(replace(CPU, instances=8), 16, 100 * GB, WHOLE)
    assert "one for each 8 cores, as instance_num asks" in own.reason


LOADS = st.builds(
    ProcessLoad,
    gpus=st.integers(0, 16),
    decodes_on_gpu=st.booleans(),
    shares_engine=st.booleans(),
    instances=st.integers(0, 64),
    model_bytes=st.integers(0, 2 * GB),
).filter(lambda load: load.gpus or not load.decodes_on_gpu)


@given(load=LOADS, cores=st.integers(6, 1024), free_bytes=st.integers(0, 1000 * GB))
def test_what_holds_for_any_host(load: ProcessLoad, cores: int, free_bytes: int) -> None:
    workers = fitting_workers(load, cores, free_bytes, WHOLE).workers
    assert 1 <= workers <= 256
    if workers > 1:
        assert memory_bytes(load, workers, WHOLE) <= free_bytes
        assert workers * max(load.instances, share_of_cores(cores, workers)) <= cores
    if load.gpus:
        assert workers % load.gpus == 0 or load.gpus % workers == 0
    assert memory_bytes(load, workers, WHOLE) >= workers * WORKER_BYTES
