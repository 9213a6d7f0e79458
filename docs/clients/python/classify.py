"""Classify image files: python classify.py HOST PORT FILE..."""

import sys

from thriftpipe import Client, ClientError, OverloadedError

TOP_K = 3
TIMEOUT_S = 10  # of the call, with all tries


def main(host: str, port: str, *files: str) -> int:
    """Print the best classes of each file; 1 if one has none."""
    with Client(host, int(port), call_timeout_s=TIMEOUT_S) as client:
        try:
            results = client.classify_batch(files, top_k=TOP_K)
        except OverloadedError as error:
            # The client has tried again by itself before.
            print(f"overloaded, try again in {error.retry_after_ms} ms", file=sys.stderr)
            return 1
        except ClientError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    for file, result in zip(files, results, strict=True):
        if isinstance(result, ClientError):
            print(f"{file}: {result}", file=sys.stderr)
        else:
            for entry in result.top_k:
                print(f"{file}\t{entry.label}\t{entry.score:.4f}")
    return int(any(isinstance(result, ClientError) for result in results))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
