"""Classify image files with thriftpy2 and the IDL file alone.

python classify_with_idl.py HOST PORT FILE..., where inference.thrift lies beside this program.
"""

import random
import sys
import time
from pathlib import Path

import thriftpy2
from thriftpy2.rpc import client_context
from thriftpy2.transport import TFramedTransportFactory

TOP_K = 3
TIMEOUT_S = 10  # of the call, with all tries

idl = str(Path(__file__).with_name("inference.thrift"))
inference = thriftpy2.load(idl, module_name="inference_thrift")


def classify(client, requests):
    """The results of the requests; what the server refuses as overload is tried again."""
    end_s = time.monotonic() + TIMEOUT_S
    while True:
        left_ms = max(1, int((end_s - time.monotonic()) * 1000))
        options = inference.InferOptions(top_k=TOP_K, timeout_ms=left_ms)
        try:
            return client.infer_images(requests, options)
        except inference.Overloaded as error:
            pause_s = error.retry_after_ms / 1000 + random.uniform(0, 0.05)
            if time.monotonic() + pause_s >= end_s:
                raise
            print(f"overloaded, trying again in {pause_s * 1000:.0f} ms", file=sys.stderr)
            time.sleep(pause_s)


def main(host, port, *files):
    """Print the best classes of each file; 1 if one has none."""
    requests = [
        inference.InferenceParams(uuid=file, data=Path(file).read_bytes()) for file in files
    ]
    with client_context(
        inference.InferenceService,
        host,
        int(port),
        trans_factory=TFramedTransportFactory(),
        socket_timeout=TIMEOUT_S * 1000,
        connect_timeout=TIMEOUT_S * 1000,
    ) as client:
        results = classify(client, requests)
    for result in results:
        if result.error is not None:
            print(f"{result.uuid}: {result.error.message}", file=sys.stderr)
            continue
        for entry in result.top_k:
            print(f"{result.uuid}\t{entry.label}\t{entry.score:.4f}")
    return int(any(result.error is not None for result in results))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
