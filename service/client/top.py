"""`top`: what a server does, in the terminal, as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from interfaces.stats import Stats
from service.call_counts import OK
from service.client.changes import Change, Latency, NodeChange, change
from service.client.errors import ClientError

_NONE = "·"


def watch(
    read: Callable[[], Stats],
    address: str,
    out: TextIO,
    *,
    interval_s: float,
    once: bool,
    as_json: bool,
) -> None:
    """Show what a server does, until it is interrupted.

    In a terminal the picture is replaced; elsewhere one follows the other. While the server does
    not answer, that is said in its place.

    Args:
        read: asks the server.
        address: the server, for the picture.
        out: where to.
        interval_s: from one picture to the next.
        once: whether to end after the first one.
        as_json: whether each is a line of JSON, with all numbers.

    Raises:
        ClientError: the server does not answer at first, or with `once` or `as_json`.
    """
    # What servers call their nodes is no markup.
    console = Console(file=out, markup=False, emoji=False)
    if as_json:
        for now, before in _pairs(read, interval_s, once=once):
            if isinstance(now, ClientError):
                raise now
            out.write(f"{_line(now, before)}\n")
            out.flush()
        return
    pictures = (_shown(*pair, address) for pair in _pairs(read, interval_s, once=once))
    if once or not console.is_terminal:
        for shown in pictures:
            console.print(shown)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(Text(f"{address}: the first numbers come in {interval_s:g} s"), refresh=True)
        for shown in pictures:
            live.update(shown, refresh=True)


def _pairs(
    read: Callable[[], Stats], interval_s: float, *, once: bool
) -> Iterator[tuple[Stats | ClientError, Stats]]:
    """The newest stats, or why there are none, each with those before; for ever unless `once`."""
    before = read()
    while True:
        time.sleep(interval_s)
        try:
            now = read()
        except ClientError as error:
            if once:
                raise
            yield error, before
        else:
            yield now, before
            before = now
        if once:
            return


def _shown(now: Stats | ClientError, before: Stats, address: str) -> RenderableType:
    if isinstance(now, ClientError):
        return Text(f"{now}\nIt is asked again.", style="bold red")
    return picture(now, change(now, before), address)


def _line(now: Stats, before: Stats) -> str:
    return json.dumps({"stats": asdict(now), "change": asdict(change(now, before))})


def picture(now: Stats, done: Change, address: str) -> RenderableType:
    """What the terminal shows.

    Args:
        now: the server.
        done: what it has done of late.
        address: the server.
    """
    tables = (_stages(done), _nodes(done), _workers(now, done), _gpus(now))
    shown = (table for table in tables if table.row_count)
    return Group(_headline(now, address), _calls(now, done), *shown)


def _headline(now: Stats, address: str) -> Text:
    ready = sum(not worker.why_not_ready for worker in now.workers)
    text = Text.assemble(
        (address, "bold"),
        f"  up {_duration(now.uptime_s)}  ",
        (f"{ready} of {now.wanted_workers} workers ready", _state(ready, now.wanted_workers)),
        f"  {now.connections} of {now.max_connections} connections",
        f"\n{now.images_in_flight} images in flight, {now.images_waiting} waiting",
    )
    if now.worker_restarts:
        text.append(f"  worker restarts: {now.worker_restarts}", "yellow")
    if (process := now.engine_process) is not None:
        state = "there" if process.alive else "GONE"
        text.append(
            f"  engine process {process.pid} {state}, restarts: {process.restarts}",
            "green" if process.alive else "bold red",
        )
    for worker in now.workers:
        if worker.why_not_ready:
            text.append(f"\nworker {worker.worker} is not ready: {worker.why_not_ready}", "red")
    return text


def _state(working: int, wanted: int) -> str:
    """The style in which it is shown how many of so many work."""
    if working == wanted:
        return "green"
    return "yellow" if working else "bold red"


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _calls(now: Stats, done: Change) -> RenderableType:
    table = _table("requests", "method", "per s", "p50 ms", "p99 ms", "total")
    for method, latency in done.latencies.items():
        total = sum(now.calls[method].values())
        table.add_row(method, *_latency(latency), str(total))
    return Group(
        table,
        _rates("answers a second: ", done.calls_per_s),
        _rates("images a second: ", done.images_per_s),
        _rates("refused a second: ", done.refused_per_s, "bold yellow"),
    )


def _rates(title: str, per_s: Mapping[str, float], style: str = "yellow") -> Text:
    """How often what happened, in one line; what is well is green, and all else in `style`."""
    line = Text(title)
    if not per_s:
        line.append("none", "dim")
    for name, rate_per_s in sorted(per_s.items()):
        line.append(f"{name} {rate_per_s:.1f}  ", "green" if name == OK else style)
    return line


def _latency(latency: Latency) -> tuple[str, str, str]:
    return f"{latency.per_s:.1f}", _number(latency.p50_ms), _number(latency.p99_ms)


def _stages(done: Change) -> Table:
    table = _table("stages of images", "stage", "per s", "p50 ms", "p99 ms")
    for stage, latency in done.stages.items():
        table.add_row(stage, *_latency(latency))
    return table


def _nodes(done: Change) -> Table:
    table = _table(
        "nodes",
        "node",
        *("working", "busy", "items/s", "fail/s", "wait ms", "batch ms", "rows", "rebuilt"),
    )
    table.add_column("batches left")
    for name, node in done.nodes.items():
        table.add_row(name, *_node(node))
    return table


def _node(done: NodeChange) -> list[str | Text]:
    node = done.node
    style = _state(node.working_instances - node.stuck_instances, node.instances)
    told = f"{node.working_instances}/{node.instances}"
    if node.stuck_instances:
        told += f" {node.stuck_instances} stuck"
    return [
        Text(told, style),
        f"{done.busy:.0%}",
        f"{done.items_per_s:.1f}",
        Text(f"{done.failed_per_s:.1f}", "bold red" if done.failed_per_s else "dim"),
        _number(done.queue_ms),
        _number(done.forward_ms),
        _number(done.batch_rows),
        str(node.rebuilds),
        " ".join(f"{reason} {share:.0%}" for reason, share in done.reasons.items()),
    ]


def _workers(now: Stats, done: Change) -> Table:
    table = _table("workers", "worker", "pid", "connections", "in flight", "requests/s")
    table.add_column("state")
    for worker in now.workers:
        if worker.report_age_s:
            state = Text(f"no answer for {worker.report_age_s:.0f} s", "bold red")
        else:
            state = Text("not ready", "red") if worker.why_not_ready else Text("ready", "green")
        table.add_row(
            *(str(worker.worker), str(worker.pid), str(worker.connections)),
            str(worker.images_in_flight),
            f"{done.worker_calls_per_s[worker.worker]:.1f}",
            state,
        )
    return table


def _gpus(now: Stats) -> Table:
    table = _table("GPUs", "GPU", "busy", "memory")
    for gpu in now.gpus:
        gib = f"{gpu.memory_used_bytes / 2**30:.1f} of {gpu.memory_total_bytes / 2**30:.1f} GiB"
        table.add_row(f"{gpu.index} {gpu.name}", f"{gpu.utilization:.0%}", gib)
    return table


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f}"


def _duration(seconds: float) -> str:
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{minutes:.0f} min {seconds % 60:.0f} s" if minutes else f"{seconds:.0f} s"
