"""The metrics, their names and documentation, and the files in deploy/ that name them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from service.metrics.metric_table import METRICS
from tests.promql import selected_series
from tests.service.metrics.metric_names import metric_table, series_names

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "thriftpipe.json"
PAGE = ROOT / "docs" / "operations-metrics.md"
# Made by Prometheus itself of each scrape.
BY_PROMETHEUS = {"up"}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard_expressions() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def expressions() -> list[str]:
    # Grafana puts in its own variables before Prometheus reads them.
    shown = [expression.replace("$__rate_interval", "5m") for expression in dashboard_expressions()]
    return [*(rule["expr"] for rule in rules()), *shown]


def test_the_names_follow_the_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"thriftpipe_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not re.search(r"_(ms|us|minutes|percent|kb|mb)(_|$)", metric.name)
        assert not metric.help.endswith(".")
        if metric.kind == "histogram":
            assert metric.name.endswith(("_seconds", "_rows"))


def test_the_page_has_the_table() -> None:
    table = metric_table()
    assert table in PAGE.read_text(), f"docs/{PAGE.name} lacks this table:\n{table}"


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_reads_what_the_server_tells(expression: str) -> None:
    read = set(selected_series(promql_parser.parse(expression)))
    assert read
    assert read <= series_names() | BY_PROMETHEUS


def test_a_wrong_name_and_wrong_syntax_would_be_found() -> None:
    wrong = "sum(rate(thriftpipe_image_total[5m])) / on () up > 0"
    assert set(selected_series(promql_parser.parse(wrong))) == {"thriftpipe_image_total", "up"}
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        promql_parser.parse("sum(rate(thriftpipe_images_total[5m])")


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    page = PAGE.read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in page
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert scraped["rule_files"] == ["alerts.yml"]
    assert [job["job_name"] for job in scraped["scrape_configs"]] == ["thriftpipe"]


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["targets"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    shown = {name for text in expressions() for name in selected_series(promql_parser.parse(text))}
    assert {metric.name for metric in METRICS if metric.kind != "histogram"} <= shown


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus has it")
@pytest.mark.parametrize(
    "command",
    [
        "check config prometheus.yml",
        "check config compose.yml",
        "check rules alerts.yml",
        "test rules alerts_test.yml",
    ],
)
def test_promtool_agrees(command: str) -> None:
    found = subprocess.run(
        ["promtool", *command.split()], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
