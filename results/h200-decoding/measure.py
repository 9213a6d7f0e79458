"""Decodes by NVIDIA's Python binding and by the C interface, while other threads are at work.

Run in the project's folder, with nvImageCodec installed:

    PYTHONPATH=. python results/h200-decoding/measure.py [--device cpu] > windows.json

Each line that it writes to stderr is a batch size, the threads that decode (they take turns), other
threads, and images a second by the binding, by the C interface, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch
from nvidia import nvimgcodec

from loadtest.load.images import default_images
from pipeline.backends.batch_decoder import CPU_ONLY, HW_GPU_ONLY, BatchDecoder, Block
from pipeline.backends.nvimgcodec_library import Library
from service.images.jpeg import read_jpeg_header

ROUNDS, WINDOW_S = 5, 0.17
NO_GPU = -99999


class Binding:
    """What DecodeTensor did with NVIDIA's Python binding."""

    def __init__(self, device: torch.device, stream: int) -> None:
        on_gpu = device.type == "cuda"
        kinds = nvimgcodec.BackendKind
        self._interface = "__cuda_array_interface__" if on_gpu else "__array_interface__"
        self._stream = stream
        self._params = nvimgcodec.DecodeParams(sample_format=nvimgcodec.SampleFormat.I_RGB)
        self._decoder = nvimgcodec.Decoder(
            device_id=device.index if on_gpu else NO_GPU,
            max_num_cpu_threads=1,
            backends=[nvimgcodec.Backend(kinds.HW_GPU_ONLY if on_gpu else kinds.CPU_ONLY)],
        )
        self._images: Any = None

    def decode(self, batch: Sequence[bytes]) -> None:
        """Decode into the memory of the batch before."""
        streams = []
        for data in batch:
            read_jpeg_header(data)
            streams.append(nvimgcodec.CodeStream(np.frombuffer(data, np.uint8)))
        self._images = self._decoder.decode(
            streams, images=self._images, params=self._params, cuda_stream=self._stream
        )
        for image in self._images:
            memory = getattr(image, self._interface)
            memory["shape"], memory["strides"], memory["data"]


class Interface:
    """What it does with the C interface."""

    library: Library | None = None

    def __init__(self, device: torch.device, stream: int) -> None:
        del stream
        Interface.library = Interface.library or Library()
        kind = HW_GPU_ONLY if device.type == "cuda" else CPU_ONLY
        self._decoder = BatchDecoder(Interface.library, device, kind, "rgb")
        self._blocks: list[Block] = []

    def decode(self, batch: Sequence[bytes]) -> None:
        """Decode into the memory of the batch before, which the stream is done with."""
        self._decoder.end_pass()
        for data in batch:
            read_jpeg_header(data)
        self._blocks = self._blocks or [Block() for _ in batch]
        assert all(self._decoder.decode(batch, self._blocks))  # noqa: S101


def talk(end: socket.socket) -> None:
    """Answer 256 bytes of JSON with as many, as a thread of a connection does."""
    with suppress(OSError):
        while data := end.recv(256, socket.MSG_WAITALL):
            message = json.loads(data)
            counts: dict[str, int] = {}
            for index in range(60):
                counts[f"{index % 7}"] = counts.get(f"{index % 7}", 0) + index
            message["scores"] = sorted(counts.values())[:5]
            end.sendall(json.dumps(message).encode().ljust(256))


def images_per_s(
    way: Callable[[torch.device, int], Any],
    device: torch.device,
    batches: Sequence[Sequence[bytes]],
    threads: int,
    others: int,
) -> float:
    """Images a second of threads that take turns, each with a decoder of its own."""
    turn, ready = threading.Lock(), threading.Barrier(threads + 1)
    counts = [0] * threads
    end_s = [0.0]

    def work(place: int) -> None:
        with ExitStack() as stack:
            stream = None
            if device.type == "cuda":
                stream = torch.cuda.Stream(device)
                stack.enter_context(torch.cuda.stream(stream))
            decoder = way(device, stream.cuda_stream if stream else 0)
            decoder.decode(batches[0])
            ready.wait()
            while time.perf_counter() < end_s[0]:
                with turn:
                    decoder.decode(batches[counts[place] % len(batches)])
                if stream:
                    stream.synchronize()
                counts[place] += 1

    with ExitStack() as stack:
        for _ in range(others // 2):
            ends = socket.socketpair()
            for end in ends:
                threading.Thread(target=talk, args=(end,), daemon=True).start()
                stack.callback(end.shutdown, socket.SHUT_RDWR)
                end.sendall(b'{"id": 1}'.ljust(256))
        workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
        for worker in workers:
            worker.start()
        while ready.n_waiting < threads:
            time.sleep(0.001)
        began_s = time.perf_counter()
        end_s[0] = began_s + WINDOW_S
        ready.wait()
        for worker in workers:
            worker.join()
        took_s = time.perf_counter() - began_s
    return sum(counts) * len(batches[0]) / took_s


def main() -> None:
    """Measure all cells, both ways in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    device = torch.device(parser.parse_args().device)
    photos = [image.path.read_bytes() for image in default_images()]
    rows = []
    for size in (1, 4, 16):
        batches = [
            [photos[(start + 5 * place) % len(photos)] for place in range(size)]
            for start in range(len(photos))
        ]
        for threads in (1, 2, 3):
            for others in (0, 6):
                rates: dict[str, list[float]] = {"Binding": [], "Interface": []}
                for _ in range(ROUNDS):
                    for way in (Binding, Interface):
                        rate = images_per_s(way, device, batches, threads, others)
                        rates[way.__name__].append(rate)
                medians = [statistics.median(values) for values in rates.values()]
                sys.stderr.write(
                    f"{size:2} {threads} {others} {medians[0]:8.0f} {medians[1]:8.0f} "
                    f"{medians[1] / medians[0]:5.2f}\n"
                )
                rows.append({"batch": size, "threads": threads, "others": others, **rates})
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
