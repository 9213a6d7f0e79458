"""Classify image files, each in a call of its own: python classify_async.py HOST PORT FILE..."""

import asyncio
import sys

from thriftpipe import AsyncClient, ClientError, OverloadedError

TOP_K = 3
TIMEOUT_S = 10  # of each call, with all tries


async def classify(client: AsyncClient, file: str) -> list[str]:
    """A line for each of the file's best classes, or none."""
    try:
        result = await client.classify(file, top_k=TOP_K)
    except OverloadedError as error:
        # The client has tried again by itself before.
        print(f"{file}: overloaded, try again in {error.retry_after_ms} ms", file=sys.stderr)
    except ClientError as error:
        print(f"{file}: {error}", file=sys.stderr)
    else:
        return [f"{file}\t{entry.label}\t{entry.score:.4f}" for entry in result.top_k]
    return []


async def main(host: str, port: str, *files: str) -> int:
    """Print the best classes of each file; 1 if one has none."""
    async with AsyncClient(host, int(port), call_timeout_s=TIMEOUT_S) as client:
        # All at once; the client has 16 connections, and the other calls wait for one of them.
        results = await asyncio.gather(*(classify(client, file) for file in files))
    for lines in results:
        print(*lines, sep="\n", end="\n" if lines else "")
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
