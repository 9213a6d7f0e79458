"""The reports of runs on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from interfaces.markdown import aligned_table
from loadtest.records.raw_files import read_table
from loadtest.records.run import Run
from loadtest.report.document import Page
from loadtest.report.tables import check_table
from tests.cluster_runs import plots
from tests.robustness.checking_clients import RIGHT

CHAOS, SCALING = "cluster-chaos", "cluster-scaling"

Sections = list[tuple[str, str]]


def _chaos(run: Run, folder: Path) -> Sections:
    settings, phases = run.settings, run.results["phases"]
    right_s: dict[str, list[float]] = {phase["name"]: [] for phase in phases}
    for row in read_table(folder, "attempts"):
        if row["outcome"] == RIGHT:
            right_s[row["phase"]].append(float(row["ended_s"]))
    picture = plots.draw_phases(folder, phases, right_s)
    about = (
        f"A Ray cluster of a head and {settings['nodes']} nodes on this machine, "
        f"{settings['replicas']} replicas whose engine takes {settings['item_ms']:g} ms an image, "
        f"two front ends behind HAProxy, as `deploy/haproxy.cfg` configures it, and "
        f"{settings['clients']} closed-loop clients of its port. Each image has an answer that "
        "no other has. What the head knows is kept "
        + ("in its memory." if settings["gcs"] == "memory" else f"by {settings['gcs']}.")
    )
    whats = "\n".join(f"- {phase['name']}: {phase['what']}" for phase in phases)
    return [
        ("Throughput around each fault", f"{about}\n\n![right answers a second]({picture})\n"),
        ("Attempts of the clients, by outcome", f"{_outcomes(run)}\n{whats}"),
    ]


def _outcomes(run: Run) -> str:
    phases = run.results["phases"]
    names = [*dict.fromkeys(name for phase in phases for name in phase["outcomes"])]
    header = ("phase", *names, "calls/s before", "then", "back after, s")
    return aligned_table(
        header,
        [
            (
                phase["name"],
                *(phase["outcomes"].get(name, 0) for name in names),
                *(f"{phase[key]:.1f}" for key in ("before_per_s", "after_per_s")),
                "not" if phase["back_s"] is None else f"{phase['back_s']:.1f}",
            )
            for phase in phases
        ],
    )


def _scaling(run: Run, folder: Path) -> Sections:
    settings = run.settings
    windows = [
        (int(row["replicas"]), float(row["images_per_s"])) for row in read_table(folder, "windows")
    ]
    one_per_s = median(rate for count, rate in windows if count == min(settings["counts"]))
    picture = plots.draw_scaling(folder, windows, one_per_s / min(settings["counts"]))
    text = (
        f"Replicas whose engine takes {settings['item_ms']:g} ms an image behind one front end, "
        f"{settings['clients_per_replica']} closed-loop clients for each; windows of "
        f"{settings['duration_s']:g} s, in {settings['rounds']} rounds over all counts.\n\n"
        f"![images a second by replicas]({picture})\n\n"
    )
    return [("Throughput by replicas", text + _rates(run))]


def _rates(run: Run) -> str:
    header = ("replicas", "images/s (median)", "of linear", "windows")
    rows = [
        (
            row["replicas"],
            f"{row['images_per_s']:.2f}",
            f"{row['of_linear']:.3f}",
            row["windows"],
        )
        for row in run.results["scaling"]
    ]
    return aligned_table(header, rows)


def _page(
    title: str, sections: Callable[[Run, Path], Sections], short: Callable[[Run], str]
) -> Page:
    def values(run: Run, folder: Path) -> dict[str, Any]:
        return {"checks": check_table(run.checks), "sections": sections(run, folder)}

    def terminal(run: Run) -> str:
        return f"{short(run)}\n{check_table(run.checks)}"

    return Page(title, "cluster.md", values, terminal, Path(__file__).parent)


PAGES = {
    CHAOS: _page("Cluster under faults", _chaos, _outcomes),
    SCALING: _page("Throughput by replicas", _scaling, _rates),
}
