"""The report of results/scaling, and the generated parts of docs/scaling.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling import plan_tables, study_tables
from scaling.costs import Costs, read_costs
from scaling.errors import ScalingError
from scaling.plan import Demand, make_plan
from scaling.plots import draw_study, draw_validation
from scaling.study import read_study
from scaling.validation import Comparison, read_measured, runtime, servers

# Where the page of the documentation has a generated part.
_BLOCK = re.compile(r"(<!-- scaling: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_REPORT = """\
# Routing and batching: measured, and simulated

- Measured: {started}, commit {commit}{dirty}
- Machine: {cpu}, {cores_usable} cores usable, {kernel}, Python {python}
- Other programs took {foreign} of a core while the windows ran (median; most {most}), this
  measurement {own}; scheduling of this program and its servers: {scheduling}
- Servers: a model whose batches take {batch_ms:g} ms and {image_ms:g} ms an image, up to {largest}
  images, one instance, `batching_timeout` {timeout_ms:g} ms; {repeats} repeats of {window_s:g} s,
  Poisson arrivals, latencies from the planned times
- Simulated: {simulated}, in {took_s:g} s

## The simulation beside what was measured

{validation_text}
{validation}
![errors of the simulation](validation.png)

The simulation gets the same arrivals and the same seeds of its choices. What a batch and the way
there and back take is measured before each repeat, with one server: full batches one after the
other, and lone images. Of the runtime by itself
([xeon-2core-batching](../xeon-2core-batching/report.md)) one client sets what a batch takes, and
the others are compared.

## {replicas:,} replicas

{setup}
{findings}
![rules, reports, front ends and sizes](study.png)

### Rules

{rules}
### Unequal replicas

{unequal}
### Reports of the replicas' queues

{reports}
### Front ends that know their own calls

{front_ends}
### Sizes of replicas

{sizes}
### Overload

{overload}
### The plan's GPUs

{gpus}
### Hosts of two cores, which do not batch

{cores}
## How to reproduce it

```
{measure_command}
{simulate_command}
python -m scaling report
```

`run.json` and `calls.csv.gz` are the measured servers: of each image its point, repeat, planned
time, how late it was sent, latency, server and outcome. `simulation.json` has all settings and
rows; the same code gives the same rows again.
"""


def plan_blocks(costs: Costs, demand: Demand) -> dict[str, str]:
    """The parts that follow from costs alone, by name."""
    plan = make_plan(costs, costs.gpu, demand)
    return {
        "summary": plan_tables.summary(plan),
        "costs": plan_tables.costs_table(costs),
        "plan": plan_tables.plan_table(plan),
        "fills": plan_tables.fills_table(plan),
        "ladder": plan_tables.ladder_table(costs, demand),
        "choices": plan_tables.choices_table(costs, demand),
        "changes": plan_tables.changes_table(costs, demand),
    }


def study_blocks(folder: Path, comparisons: list[Comparison]) -> dict[str, str]:
    """The parts that follow from the simulation and from its check, by name."""
    rows = read_study(folder)["rows"]
    return {
        "validation-text": study_tables.validation_text(comparisons),
        "validation": study_tables.validation_table(comparisons),
        "setup": study_tables.setup(rows),
        "findings": study_tables.findings(rows),
        "rules": study_tables.rules_table(rows),
        "reports": study_tables.reports_table(rows),
        "front-ends": study_tables.front_ends_table(rows),
        "sizes": study_tables.sizes_table(rows, "sizes"),
        "overload": study_tables.overload_table(rows),
        "gpus": study_tables.sizes_table(rows, "GPUs"),
        "unequal": study_tables.short_table(rows, "unequal"),
        "cores": study_tables.short_table(rows, "cores"),
    }


def compared(folder: Path, results: Path) -> list[Comparison]:
    """All that the simulation is checked against."""
    return [*runtime(results), *servers(folder)]


def filled(text: str, results: Path) -> str:
    """The page with its generated parts made again.

    Raises:
        ScalingError: it has a part of another name, or lacks one.
    """
    folder = results / "scaling"
    costs = read_costs(results)
    blocks = {**plan_blocks(costs, Demand()), **study_blocks(folder, compared(folder, results))}
    names = [match[2] for match in _BLOCK.finditer(text)]
    if unknown := sorted(set(names) - set(blocks)):
        raise ScalingError(f"no generated part {unknown}; known: {', '.join(blocks)}")
    if missing := sorted(set(blocks) - set(names)):
        raise ScalingError(f"the page lacks <!-- scaling: NAME --> ... <!-- end --> for {missing}")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n{match[3]}", text)


def write_report(folder: Path, results: Path) -> str:
    """Write report.md and the plots.

    Returns:
        What a terminal shows.
    """
    run, study = read_measured(folder), read_study(folder)
    comparisons = compared(folder, results)
    blocks = study_blocks(folder, comparisons)
    draw_validation(folder, comparisons)
    draw_study(folder, study["rows"])
    text = _REPORT.format(
        **_head(run),
        **{name.replace("-", "_"): block for name, block in blocks.items()},
        simulated=study["started"],
        took_s=study["took_s"],
        simulate_command=study["command"],
        replicas=study["rows"][0]["cluster"]["replicas"],
    )
    (folder / "report.md").write_text(text, encoding="utf-8")
    return f"{blocks['validation']}\n{blocks['validation-text']}\nwritten: {folder}"


def _head(run: Mapping[str, Any]) -> dict[str, Any]:
    machine, source, settings = run["machine"], run["source"], run["settings"]
    configured, windows = run["configured"], run["windows"]
    foreign = sorted(window["foreign_percent"] for window in windows)
    own = sorted(window["own_percent"] for window in windows)
    return {
        "started": run["started"],
        "commit": source["commit"],
        "dirty": " with uncommitted changes" if source["dirty"] else "",
        "cpu": machine["cpu_model"],
        "cores_usable": machine["cpu_cores_usable"],
        "kernel": machine["kernel"],
        "python": machine["python"],
        "foreign": f"{foreign[len(foreign) // 2]:.0f} %",
        "most": f"{foreign[-1]:.0f} %",
        "own": f"{own[len(own) // 2]:.0f} %",
        "measure_command": run["command"],
        "scheduling": run["scheduling"],
        **configured,
        **settings,
    }
