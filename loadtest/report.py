"""report.md and the plots, made from the raw files alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from loadtest import plots, raw_files, stage_plot, sweep_plot, tables
from loadtest.errors import LoadTestError
from loadtest.measured_run import MeasuredRun, StageRun, VariantRun, WorkloadRun
from loadtest.null_request import cpu_us_per_request
from loadtest.stage_summary import by_kind, stage_parts
from loadtest.summary import VariantSummary, summarise
from loadtest.sweep_summary import best_point, sweep_points
from loadtest.verdict import verdict

REPORT_FILE = "report.md"
_ENOUGH_REPEATS = 5


def build(folder: Path) -> MeasuredRun:
    """Read a measured folder and write its report.md and plots.

    Returns:
        What the raw files hold.

    Raises:
        LoadTestError: the raw files are missing or damaged, or the folder is not writable.
    """
    run = raw_files.read(folder)
    sections = [_head(run)]
    try:
        for workload in run.workloads:
            if run.kind == "sweep":
                sections.append(_sweep(folder, run, workload))
            elif rows := summarise(run, workload):
                pictures = plots.draw(folder, workload, rows)
                sections.append(_workload(run, workload, rows, pictures))
                sections += [_parts(workload), _stages(folder, workload)]
        sections += [_reading(run), _reproduce(run)]
        (folder / REPORT_FILE).write_text("\n".join(sections), encoding="utf-8")
    except OSError as error:
        raise LoadTestError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
    return run


def terminal_tables(run: MeasuredRun) -> str:
    """The tables of every workload, for the end of a run."""
    if run.kind == "sweep":
        return "\n".join(_sweep_tables(run, workload) for workload in run.workloads)
    clients, memory_bytes = _clients(run), _memory_bytes(run)
    parts = []
    for workload in run.workloads:
        if not (rows := summarise(run, workload)):
            continue
        parts.append(
            f"{workload.name} ({workload.engine} {workload.precision}), {clients} clients\n\n"
            + "\n".join(_tables(rows, clients, memory_bytes))
            + "\n"
            + "\n".join(verdict(rows, clients))
            + "\n"
        )
    return "\n".join(parts)


def quick_rows(run: MeasuredRun) -> str:
    """The quick start's rows of a run with one server, its counts and its first errors."""
    row = summarise(run, run.workloads[0])[0]
    length_s = run.workloads[0].repeats[0].length_s
    lines = [
        tables.short_rows(row, _memory_bytes(run)),
        f"{row.requests} requests in {length_s:.2f} s, {row.failed_images} images failed; "
        f"QPS x mean latency = {tables.number(row.concurrency, 2)} for {_clients(run)} clients; "
        f"client CPU {tables.percent(row.usage.clients_cpu_percent, 1)}, "
        f"foreign CPU {tables.percent(row.usage.foreign_percent, 1)}; "
        f"marks: {tables.marks(row, _clients(run))}",
        *(f"error ({count} times): {error}" for error, count in row.first_errors),
    ]
    return "\n".join(lines)


def _clients(run: MeasuredRun) -> int:
    return int(run.settings["request_client"])


def _load(run: MeasuredRun) -> str:
    """How many clients in how many processes."""
    if run.kind == "sweep":
        numbers = ", ".join(map(str, run.settings["clients"]))
        return f"{numbers} closed-loop clients in as many processes as the table says"
    processes = run.settings["client_processes"]
    return f"{_clients(run)} closed-loop clients in {processes} process(es)"


def _memory_bytes(run: MeasuredRun) -> int:
    return int(run.machine["memory_bytes"])


def _head(run: MeasuredRun) -> str:
    title = {
        "compare": "Comparison of the handlers",
        "sweep": "Throughput and latency over the number of clients",
        "run": "Load on a running server",
        "null_request": "Server CPU time per null request",
    }[run.kind]
    machine, source = run.machine, run.source
    commit = source["commit"] or "not in a git checkout"
    dirty = " with uncommitted changes" if source["dirty"] else ""
    gpus = machine["gpus"] if isinstance(machine["gpus"], str) else ", ".join(machine["gpus"])
    mean_kb = sum(image["size_bytes"] for image in run.images) / len(run.images) / 1000
    lines = [
        f"# {title}",
        "",
        f"- Measured: {run.started}, commit {commit}{dirty}",
        f"- Machine: {machine['cpu_model']}, {machine['cpu_cores_usable']} cores usable, "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB memory, {machine['kernel']}, "
        f"Python {machine['python']}, GPU: {gpus}",
        f"- Load: {_load(run)}, {run.settings['request_batch']} "
        f"image(s) a request, window {_window(run.settings)}, "
        f"warm-up {run.settings['warmup_s']:g} s, on the server's machine unless said otherwise",
        f"- Payload: {len(run.images)} files, {mean_kb:.1f} KB in the mean",
        "",
    ]
    if run.settings.get("keep_servers"):
        lines += [
            "All servers of a model were started once and waited idle while one of them was "
            "measured; GPU memory is that of all of them together.",
            "",
        ]
    if not run.complete:
        lines += [
            "**Partial**: the measurement ended before all of its windows were measured; this "
            "page shows those that were.",
            "",
        ]
    repeats = _repeats(run)
    if repeats is not None and repeats < _ENOUGH_REPEATS:
        lines += [
            f"**Only {repeats} repeats**: {_ENOUGH_REPEATS} are the least for numbers to rely on.",
            "",
        ]
    if run.kind == "null_request":
        lines += [
            f"**{cpu_us_per_request(run):.1f} us of server CPU time (user and system) per "
            f"request** with {run.settings['payload_bytes']} bytes in, label and score out.",
            "",
        ]
    return "\n".join(lines)


def _repeats(run: MeasuredRun) -> int | None:
    """How often the least measured row of a comparison was measured; None where none is."""
    if run.kind not in {"compare", "sweep"}:
        return None
    counts = Counter(
        (workload.name, repeat.variant, repeat.clients)
        for workload in run.workloads
        for repeat in workload.repeats
    )
    return min(counts.values(), default=0)


def _window(settings: dict[str, Any]) -> str:
    if settings["total_number"] is not None:
        return f"of {settings['total_number']} requests"
    return f"{settings['duration_s']:g} s"


def _tables(rows: list[VariantSummary], clients: int, memory_bytes: int) -> list[str]:
    return [
        tables.qps_table(rows, clients),
        tables.latency_table(rows, clients),
        tables.utilisation_table(rows, memory_bytes),
    ]


def _workload(
    run: MeasuredRun, workload: WorkloadRun, rows: list[VariantSummary], pictures: list[str]
) -> str:
    clients = _clients(run)
    qps, latency, utilisation = _tables(rows, clients, _memory_bytes(run))
    parts = [
        f"## {workload.name}: {workload.engine} {workload.precision}",
        "",
        f"Model {workload.model}, SHA-256 {workload.model_sha256 or 'none'}.",
        _agreement(workload),
        "",
        "### What it says",
        "",
        *(f"- {sentence}" for sentence in verdict(rows, clients)),
        "",
        "### Throughput: images per second",
        "",
        qps,
        "### Response time",
        "",
        latency,
        "### Utilisation",
        "",
        utilisation,
        *(f"![{name}]({name})" for name in pictures),
        "",
        "### Variants",
        "",
        *(_described(row.variant) for row in rows),
        "",
    ]
    errors = [
        f"- {row.variant.name}: {count} times {error}"
        for row in rows
        for error, count in row.first_errors
    ]
    if errors:
        parts += ["### First errors", "", *errors, ""]
    return "\n".join(parts)


def _parts(workload: WorkloadRun) -> str:
    if not workload.parts:
        return ""
    return "\n".join(
        [
            f"### Parts of {workload.name} alone: images per second",
            "",
            tables.parts_table(workload.parts),
            *(
                f"- `{part.name}`: {part.description}."
                + (f" Not measured: {part.error}" if part.error else "")
                for part in workload.parts
            ),
            "",
        ]
    )


def _stages(folder: Path, workload: WorkloadRun) -> str:
    if not workload.stages:
        return ""
    parts = {run.variant: stage_parts(run) for run in workload.stages}
    told = {name: by_kind(found) for name, found in parts.items() if found}
    title = f"{workload.name}, {workload.engine} {workload.precision}"
    pictures = [stage_plot.draw(folder, workload.name, title, told)] if told else []
    return "\n".join(
        [
            f"### Where the time of a request goes: {workload.name}",
            "",
            "From windows of their own, in which one of the clients asks for stage times while "
            "the others load the server as ever. A server that was started with "
            "`profile_stages=true` waits after every backend, so that the backend's time is its "
            "own; this costs throughput, and such a server is never timed above. The means add "
            "up to the latency at the client.",
            "",
            tables.stages_table(parts),
            *(f"![{name}]({name})" for name in pictures),
            "",
            *(_stage_run(run) for run in workload.stages),
            "",
        ]
    )


def _stage_run(run: StageRun) -> str:
    arguments = " ".join(run.server_args)
    text = f"- `{run.variant}`: {len(run.requests)} requests of one of {run.clients} clients"
    text += f", server started with `{arguments}`." if arguments else "."
    return f"{text} Not measured: {run.error}" if run.error else text


def _sweep_tables(run: MeasuredRun, workload: WorkloadRun) -> str:
    """What each variant does best within the limit, and the table of all points."""
    points = sweep_points(run, workload)
    limit_ms = float(run.settings["tp99_limit_ms"])
    best = best_point(points, limit_ms)
    lines = [
        f"- Best with TP99 <= {limit_ms:g} ms: "
        + (
            "no point."
            if best is None
            else f"**`{best.variant}` with {_count(best.clients)}: {best.qps:.1f} images per "
            f"second, TP99 {tables.number(best.tp99_ms, 2)} ms.**"
        )
    ]
    for variant in workload.variants:
        own = [point for point in points if point.variant == variant.name]
        if own:
            most = max(own, key=lambda point: point.qps)
            lines.append(
                f"- `{variant.name}`: at most {most.qps:.1f} images per second, with "
                f"{_count(most.clients)} (TP99 {tables.number(most.tp99_ms, 2)} ms)."
            )
    return "\n".join([*lines, "", tables.sweep_table(points)])


def _count(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"


def _sweep(folder: Path, run: MeasuredRun, workload: WorkloadRun) -> str:
    points = sweep_points(run, workload)
    title = f"{workload.name}, {workload.engine} {workload.precision}"
    limit_ms = float(run.settings["tp99_limit_ms"])
    pictures = [sweep_plot.draw(folder, workload.name, title, points, limit_ms)] if points else []
    identities = (
        _described(variant) for variant in workload.variants if variant.server is not None
    )
    return "\n".join(
        [
            f"## {title}",
            "",
            f"Model {workload.model}, SHA-256 {workload.model_sha256 or 'none'}.",
            _agreement(workload),
            "",
            _sweep_tables(run, workload),
            *(f"![{name}]({name})" for name in pictures),
            "",
            "### Variants",
            "",
            *identities,
            "",
        ]
    )


def _agreement(workload: WorkloadRun) -> str:
    found = workload.agreement
    if found is None:
        return "Answers were not compared: one server alone was measured."
    near_ties = found["images"] - found["labels_checked_under_load"]
    # Other decoders give a little other pixels, which older folders never had.
    tipped = found.get("tipped_labels", 0)
    tipped_text = (
        f"; {tipped} more, whose two best classes lie within the tolerance, got the other one from "
        "another decoder"
        if tipped
        else ""
    )
    return (
        f"Before timing, all servers gave the same labels to {found['images'] - tipped} images "
        f"({found['distinct_labels']} different labels){tipped_text}; scores differed by "
        f"{found['largest_score_difference']:.2g} at most (allowed: "
        f"{found['score_tolerance']:g}). Under load every reply's label was compared with that "
        f"answer for {found['labels_checked_under_load']} images; on the other {near_ties} the two "
        "best classes are closer than that tolerance."
    )


def _described(variant: VariantRun) -> str:
    server = variant.server
    if server is None:
        return f"- `{variant.name}`: {variant.description}."
    settings = ", ".join(f"{key}={value}" for key, value in server["settings"].items())
    versions = ", ".join(f"{name} {version}" for name, version in server["versions"].items())
    return (
        f"- `{variant.name}`: {variant.description}. Settings: {settings or 'none'}. "
        f"Versions: {versions or 'none'}. Configuration SHA-256 "
        f"{server['config_sha256'] or 'none'}."
    )


def _reading(run: MeasuredRun) -> str:
    lines = [
        "## How to read it",
        "",
        "- QPS is images with a right answer per second of wall time; the value is the median of "
        "the repeats.",
        "- TPxx is sorted[int(q * n)] of the raw latencies of all repeats together. Its 95 % "
        "interval comes from order statistics and assumes no distribution, but it assumes "
        "independent requests; `?` is a bound for which n is too small.",
        "- The ratio to a reference (`x ...`) is paired repeat by repeat: median, extremes, and "
        "the t interval of the mean log ratio.",
        "- QPS x mean latency must equal the number of clients (Little's law); more than 5 % off "
        "is marked with `!`.",
        "- CPU: 100 % is one core, as in `top`; means over exactly the measured windows. Memory "
        "is the resident size of the server's process tree, GPU memory the sum over all GPUs; of "
        "several GPUs each is told. `n/a` is not measurable, never 0.",
        "- Client CPU is that of the client processes together. A process near 100 % is the limit "
        "itself: then the server could do more than the table says.",
        "- Marks: `unstable`: a repeat's QPS is more than 10 % off the median; `noisy`: "
        "processes outside of the measurement used more than 10 % of a core; `errors`: images "
        "failed or got another label than alone.",
        "",
    ]
    if run.kind == "compare":
        lines += [
            "For reference, the rows that torchpipe's quick start publishes. **Other hardware** "
            "(GTX 1080, 8 CPU cores, ResNet-50 by TensorRT, 10 clients): only the ratio of its "
            "two rows can be set beside the tables above.",
            "",
            tables.published_table(),
        ]
    return "\n".join(lines)


def _reproduce(run: MeasuredRun) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return "\n".join(
        [
            "## How to reproduce it",
            "",
            "```",
            run.command,
            "```",
            "",
            "`python -m loadtest report DIR` makes this page and the plots again from "
            f"`{raw_files.RUN_FILE}`, `{raw_files.LATENCY_FILE}` and, where there is one, "
            f"`{raw_files.STAGE_FILE}`, which also hold the hashes of all images, every repeat and "
            "every request.",
            "",
            f"Client side: {versions}.",
            "",
        ]
    )
