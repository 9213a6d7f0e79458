"""What a cluster costs: `python -m tests.cluster.cost --output-dir results/cluster`.

One plain server, the same behind HAProxy as deploy/ configures it, a front end with one replica,
and one with two: on the same cores and in turns (A B C D, D C B A, ...), with clients that wait for
their answers. A server runs alone, from start to end: what Ray does without calls is part of the
cluster's cost, and of nothing else; it is measured, too, when the clients have gone. Two models:
the null handler, which is the cost of what is added alone, and EfficientNet-Lite0.

Writes `windows.csv`, `run.json` with machine and versions, `README.md` with the paired tables, and
`costs.json` for `python -m scaling`.
Everything about the ways over the hop is in `tests.cluster.compare_hops`, which it runs last.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtest.load.images import LoadImage, default_images
from loadtest.load.rpc import connection
from loadtest.measure.series import interleaved
from loadtest.measure.single import measure_running_server
from loadtest.progress import Progress
from loadtest.records import machine
from loadtest.records.probe import tree_cpu_s
from loadtest.report.summary import summarise
from loadtest.servers.server_process import ServerProcess, require_free_port, service_command
from loadtest.servers.variants import HOST
from loadtest.settings import LoadSettings
from measurement.statistics import Ratio, paired_ratio
from tests.deploy.haproxy import Balancer, Server, haproxy_version, on_loopback

PLAIN, BALANCED = "plain server", "HAProxy + plain server"
ONE_REPLICA = "front end + 1 replica"
_CLUSTER = ("--cluster", "local", "--replicas")
SETUPS = {
    PLAIN: ("--workers", "1"),
    BALANCED: ("--workers", "1"),
    ONE_REPLICA: (*_CLUSTER, "1"),
    "front end + 2 replicas": (*_CLUSTER, "2"),
}
MODELS = {
    "null": ("--handler", "null"),
    "efficientnet_lite0": ("--handler", "pipeline", "--model", "efficientnet_lite0"),
}
# The goals are for 10 clients and for 64.
_CLIENTS = (1, 10, 64)
_READY_S = 180.0
_IDLE_S = 5.0
# Another one than HAProxy's, so that both can have the port by which the server is found.
_BEHIND_HAPROXY = "127.0.0.2"


@dataclass(frozen=True)
class Measured:
    """One window.

    Attributes:
        cpu_ms_per_image: of all processes but the clients.
        balancer_cpu_ms_per_image: of HAProxy alone; 0 where there is none.
        idle_cpu_percent: of all processes but HAProxy's while nothing is asked, in percent of a
            core.
    """

    model: str
    setup: str
    repeat: int
    clients: int
    images_per_s: float
    tp50_ms: float
    tp99_ms: float
    cpu_ms_per_image: float
    balancer_cpu_ms_per_image: float
    errors: int
    idle_cpu_percent: float = 0.0

    @property
    def calls_cpu_ms_per_image(self) -> float:
        """Without what is done while nothing is asked."""
        return self.cpu_ms_per_image - 10 * self.idle_cpu_percent / self.images_per_s


def _windows(
    model: str,
    setup: str,
    repeat: int,
    load: LoadSettings,
    clients: Sequence[int],
    images: Sequence[LoadImage],
    progress: Progress,
) -> list[Measured]:
    """Those of one server, from its start to its end."""
    require_free_port(HOST, load.port)
    # Clients that wait for their answers load it as far as it goes, and none is to be refused.
    arguments = [*MODELS[model], *SETUPS[setup], "--max-queue-ms", "0"]
    host, balancer, found = HOST, None, list[Measured]()
    if setup == BALANCED:
        host = _BEHIND_HAPROXY
        arguments += ["--metrics-host", host, "--metrics-port", str(load.port + 1)]
    command = service_command(arguments, host, load.port)
    with ExitStack() as running:
        server = running.enter_context(ServerProcess(command, f"the {setup}", _READY_S))
        server.wait_ready()
        if setup == BALANCED:
            balancer = running.enter_context(_balancer(load.port))
        for count in clients:
            before = None if balancer is None else _passed(balancer, load)
            run = measure_running_server(
                replace(load, request_client=count), images, setup, progress
            )
            balancer_ms = 0.0
            if balancer is not None and before is not None:
                cpu_s, passed = (
                    b - a for a, b in zip(before, _passed(balancer, load), strict=True)
                )
                balancer_ms = 1000 * cpu_s / passed
            [row] = summarise(run, run.workloads[0])
            tp50_ms, tp99_ms = row.tp_ms(0.5), row.tp_ms(0.99)
            cpu_percent = row.usage["server_cpu_percent"]
            assert None not in (tp50_ms, tp99_ms, cpu_percent)
            cpu_ms = cpu_percent / 100 * row.windows[0].length_s * 1000 / row.requests
            errors = sum(bool(record.error) for record in row.windows[0].records)
            found.append(
                Measured(
                    *(model, setup, repeat, count),
                    *(row.qps.median, tp50_ms, tp99_ms, cpu_ms + balancer_ms, balancer_ms, errors),
                )
            )
        idle_percent = _idle_cpu_percent(server.pid)
        server.stop()
    return [replace(one, idle_cpu_percent=idle_percent) for one in found]


def _idle_cpu_percent(pid: int) -> float:
    """What a server and all that it has started takes now, in percent of a core."""
    before_s = tree_cpu_s(pid)
    time.sleep(_IDLE_S)
    return 100 * (tree_cpu_s(pid) - before_s) / _IDLE_S


@contextmanager
def _balancer(port: int) -> Iterator[Balancer]:
    """HAProxy at that port of HOST, before the server at the same port behind it."""
    own_port = port + 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "haproxy.cfg"
        servers = {"plain": Server(_BEHIND_HAPROXY, port, port + 1)}
        path.write_text(on_loopback(port, own_port, servers))
        with Balancer(path, (HOST, own_port)) as balancer:
            yield balancer


def _passed(balancer: Balancer, load: LoadSettings) -> tuple[float, int]:
    """HAProxy's CPU time so far, and the images that the server behind it has had.

    Warm-ups count in both, so that no part of one is counted without the other.
    """
    with connection(HOST, load.port) as client:
        images = sum(client.stats().images.values())
    return balancer.cpu_s(), images


def _table(measured: Sequence[Measured], model: str) -> str:
    """The paired rows of a model: medians, and what is added to the plain server."""
    lines = [
        "| clients | setup | QPS | of the plain server's | TP50 ms | added ms | TP99 ms "
        "| CPU ms an image | added CPU ms | of it by calls | HAProxy's CPU ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for count in sorted({one.clients for one in measured}):
        own = [one for one in measured if (one.model, one.clients) == (model, count)]
        plain = {one.repeat: one for one in own if one.setup == PLAIN}
        for setup in SETUPS:
            rows = [one for one in own if one.setup == setup and one.repeat in plain]
            if not rows:
                continue
            pairs = [(one, plain[one.repeat]) for one in rows]
            ratio = paired_ratio(
                [one.images_per_s for one, _ in pairs], [other.images_per_s for _, other in pairs]
            )
            added_ms = statistics.median(one.tp50_ms - other.tp50_ms for one, other in pairs)
            added_cpu_ms = statistics.median(
                one.cpu_ms_per_image - other.cpu_ms_per_image for one, other in pairs
            )
            by_calls_ms = statistics.median(
                one.calls_cpu_ms_per_image - other.calls_cpu_ms_per_image for one, other in pairs
            )
            balancer_ms = _median(rows, "balancer_cpu_ms_per_image")
            is_plain = setup == PLAIN
            lines.append(
                f"| {count} | {setup} | {_median(rows, 'images_per_s'):.1f} "
                f"| {'' if is_plain else _shown(ratio)} | {_median(rows, 'tp50_ms'):.2f} "
                f"| {'' if is_plain else f'{added_ms:+.2f}'} | {_median(rows, 'tp99_ms'):.2f} "
                f"| {_median(rows, 'cpu_ms_per_image'):.3f} "
                f"| {'' if is_plain else f'{added_cpu_ms:+.3f}'} "
                f"| {'' if is_plain else f'{by_calls_ms:+.3f}'} "
                f"| {f'{balancer_ms:.3f}' if balancer_ms else ''} |"
            )
    lines += ["", f"Of a core while nothing is asked: {_idle(measured, model)}."]
    return "\n".join(lines)


def _idle(measured: Sequence[Measured], model: str) -> str:
    shown = []
    for setup in SETUPS:
        rows = [one for one in measured if (one.model, one.setup) == (model, setup)]
        if rows:
            shown.append(f"{setup} {_median(rows, 'idle_cpu_percent'):.1f} %")
    return ", ".join(shown)


def _costs(measured: Sequence[Measured], command: str) -> dict[str, Any]:
    """What `scaling` reads: of the null handler, whose replica takes what a plain server takes.

    So what a front end with one replica takes more than a plain server is the front end's, Ray's
    own work included: with the most clients, so that this is spread over as many images as can be.
    HAProxy's CPU is that of its own processes, likewise with the most clients. The latency is that
    of a lone client, who waits for nothing else.
    """
    rows = {(one.setup, one.repeat, one.clients): one for one in measured if one.model == "null"}
    pairs = [
        (one, rows[PLAIN, one.repeat, one.clients])
        for (setup, _, _), one in rows.items()
        if setup == ONE_REPLICA and (PLAIN, one.repeat, one.clients) in rows
    ]
    if not pairs:
        return {}
    counts = {one.clients for one, _ in pairs}
    busiest = [
        (a.cpu_ms_per_image, b.cpu_ms_per_image) for a, b in pairs if a.clients == max(counts)
    ]
    fewest = [(a.tp50_ms, b.tp50_ms) for a, b in pairs if a.clients == min(counts)]
    balanced = [
        one.balancer_cpu_ms_per_image
        for one in rows.values()
        if (one.setup, one.clients) == (BALANCED, max(counts))
    ]
    return {
        "command": command,
        "front_end_cpu_ms_per_image": round(statistics.median(a - b for a, b in busiest), 4),
        "hop_latency_ms": round(statistics.median(a - b for a, b in fewest), 4),
        **(
            {"balancer_cpu_ms_per_image": round(statistics.median(balanced), 4)} if balanced else {}
        ),
    }


def _hops_table(windows: Sequence[dict[str, Any]]) -> str:
    """Of `tests.cluster.compare_hops`: medians over the repeats."""
    names = ("images_per_s", "median_ms", "caller_cpu_ms", "replica_cpu_ms", "ray_cpu_ms")
    lines = [
        "| callers | way | images/s | median ms | CPU ms an image: caller | replica | Ray |",
        "|---|---|---|---|---|---|---|",
    ]
    for callers, way in dict.fromkeys((one["callers"], one["way"]) for one in windows):
        own = [one for one in windows if (one["callers"], one["way"]) == (callers, way)]
        told = [f"{statistics.median(one[name] for one in own):.3f}" for name in names]
        lines.append(f"| {' | '.join([str(callers), way, *told])} |")
    return "\n".join(lines)


def _median(rows: Sequence[Measured], name: str) -> float:
    return float(statistics.median(getattr(row, name) for row in rows))


def _shown(ratio: Ratio) -> str:
    low, high = ratio.interval.low, ratio.interval.high
    bounds = "" if low is None or high is None else f" [{low:.1%}, {high:.1%}]"
    return f"{ratio.spread.median:.1%}{bounds}"


def main() -> None:
    """Measure, and write it all down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--port", type=int, default=8095)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--clients", default=",".join(map(str, _CLIENTS)))
    options = parser.parse_args()
    folder, progress = options.output_dir, Progress()
    folder.mkdir(parents=True, exist_ok=True)
    load = LoadSettings(host=HOST, port=options.port, warmup_s=1.0, duration_s=options.seconds)
    models, clients = options.models.split(","), [int(one) for one in options.clients.split(",")]
    images, measured = default_images(), list[Measured]()
    blocks = [(model, setup) for model in models for setup in SETUPS]
    began = machine.utc_now()
    for (model, setup), repeat in interleaved(blocks, options.repeats):
        progress.line(f"repeat {repeat} of {options.repeats}: {model}, {setup}")
        measured += _windows(model, setup, repeat, load, clients, images, progress)
        _write(folder, began, options, measured, models)
    ways = [sys.executable, "-m", "tests.cluster.compare_hops", "--seconds", str(options.seconds)]
    told = subprocess.run(
        [*ways, "--repeats", str(options.repeats)], check=True, stdout=subprocess.PIPE, text=True
    )
    lines = [line for line in told.stdout.splitlines() if line.startswith("{")]
    (folder / "hops.jsonl").write_text("\n".join(lines) + "\n")
    with (folder / "README.md").open("a") as page:
        page.write(f"\n## Ways over the hop\n\n{_hops_table(list(map(json.loads, lines)))}\n")
    progress.end_line()
    sys.stdout.write((folder / "README.md").read_text())


def _write(
    folder: Path,
    began: str,
    options: argparse.Namespace,
    measured: Sequence[Measured],
    models: Sequence[str],
) -> None:
    with (folder / "windows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(measured[0])))
        writer.writeheader()
        writer.writerows(map(asdict, measured))
    command = " ".join(["python -m tests.cluster.cost", *sys.argv[1:]])
    run = {
        "command": machine.without_paths(command),
        "began": began,
        "ended": machine.utc_now(),
        "repeats": options.repeats,
        "seconds": options.seconds,
        "machine": machine.describe_machine(),
        "source": machine.describe_source(),
        "versions": {
            **machine.client_versions(),
            "ray": version("ray"),
            "haproxy": haproxy_version(),
        },
    }
    (folder / "run.json").write_text(json.dumps(machine.without_paths(run), indent=2) + "\n")
    if costs := _costs(measured, run["command"]):
        (folder / "costs.json").write_text(json.dumps(costs, indent=2) + "\n")
    parts = [f"## {model}\n\n{_table(measured, model)}\n" for model in models]
    about = "Medians over the repeats; ratios and differences are paired, with 95 % intervals."
    errors = sum(one.errors for one in measured)
    head = f"# What a cluster costs\n\n`{run['command']}`. {about} Failed requests: {errors}.\n"
    (folder / "README.md").write_text("\n".join([head, *parts]))


if __name__ == "__main__":
    main()
