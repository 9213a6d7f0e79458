"""Servers that misbehave, put in front of the real command by --launch_prefix.

`fake_service.py MODE [FIFO] python -m service --handler NAME ... --port PORT`. Once it runs it
writes its pid and that of a child of its own into the FIFO.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

from thriftpy2.rpc import make_server
from thriftpy2.transport import TCyFramedTransportFactory

from idl import inference
from interfaces.upper_bound import UpperBound

REQUESTS_BEFORE_DEATH = 20


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class _Service:
    def __init__(self, handler: str, mode: str, fifo: Path, workers: int) -> None:
        self.handler = handler
        self.workers = workers
        self.mode = mode
        self.requests = 0
        self.fifo = fifo
        self.lock = threading.Lock()

    def server_info(self) -> Any:
        precision = "bf16" if self.mode == "wrong-precision" else "fp32"
        model_sha256 = self.handler if self.mode == "other-model" else "0" * 64
        return inference.ServerInfo(
            handler=self.handler,
            engine="fake",
            precision=precision,
            model="fake.onnx",
            model_sha256=model_sha256,
            config_sha256="1" * 64,
            pid=os.getppid() if self.mode == "other-pid" else os.getpid(),
            versions={},
            settings={},
            workers=self.workers,
        )

    def stats(self) -> Any:
        raise inference.InternalError(message="nothing is counted", error_id="fake")

    def infer_batch(self, params: Any) -> Any:
        del params
        with self.lock:
            self.requests += 1
            if self.mode == "tells-of-load" and self.requests == REQUESTS_BEFORE_DEATH:
                self.fifo.write_text(f"{os.getpid()}\n")
        dies = self.mode == "dies-midway" or self.mode == f"{self.handler}-dies-midway"
        if dies and self.requests > REQUESTS_BEFORE_DEATH:
            _log("out of imaginary memory")
            os._exit(9)
        return inference.InferenceResult(label=self._label(), score=0.75)

    def infer_images(self, requests: list[Any], options: Any) -> Any:
        del options
        scores = [0.75, 0.25]
        return [
            inference.InferenceResult(
                label=self._label(),
                score=scores[0],
                top_k=[inference.ClassScore(i, "class", score) for i, score in enumerate(scores)],
            )
            for _ in requests
        ]

    def _label(self) -> str:
        if self.mode == "disagree" and self.handler == "pipeline":
            return "dog"
        if self.mode == "mixes-answers" and self.requests > REQUESTS_BEFORE_DEATH:
            return "somebody else's"
        return "cat"


def main() -> None:
    mode, rest = sys.argv[1], sys.argv[2:]
    if mode == "dies-at-start":
        sys.exit("the model file is imaginary")
    if mode == "never-ready":
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        Path(rest[0]).write_text(f"{os.getpid()} {child.pid}\n")
        _log("loading for ever")
        signal.pause()
    if "pipeline.upper_bound" in rest:
        sys.stdout.write(UpperBound(100.0, 1, 1, 1, {"1": 100.0}, {"1": 100.0}).to_line() + "\n")
        return
    arguments = dict(pairwise(rest))
    workers = arguments["--workers"]
    if workers == "auto":
        workers = "3" if mode == "takes-three-processes" else "1"
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7 if mode == "dirty-exit" else 0))
    server: Any = make_server(
        inference.InferenceService,
        _Service(
            arguments["--handler"],
            mode,
            Path(rest[0]),
            int(workers),
        ),
        "127.0.0.1",
        int(arguments["--port"]),
        trans_factory=TCyFramedTransportFactory(),
        client_timeout=60_000,
    )
    server.daemon = True
    listen = server.trans.listen

    def listen_and_tell() -> None:
        listen()
        _log("ready: fake")

    server.trans.listen = listen_and_tell
    server.serve()


if __name__ == "__main__":
    main()
