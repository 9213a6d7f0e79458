"""report.html: one file for a browser, also as a browser shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from loadtest.records import raw_files
from loadtest.records.run import PartRun, Run, StagedRequest, StageRun, Window
from loadtest.report import document as report
from loadtest.report.batch_summary import batch_remarks
from loadtest.report.pages import PAGES
from loadtest.report.style import THEME
from loadtest.report.summary import summarise

_ROOT = Path(__file__).parents[3]
SCHEMA = _ROOT / "docs" / "summary.schema.json"
CHARTS = 7 + 4  # of the two workloads
PUBLISHED = _ROOT / "results" / "xeon-2core-fp32"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# What stands for the page's own measure in a browser: charts with their marks, and its width.
_MEASURE = """
<script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument;
  page.querySelectorAll("details").forEach(part => { part.open = true; });
  const charts = [...page.querySelectorAll("svg")].map(svg => [...svg.querySelectorAll(".mark")]
    .map(mark => mark.getBoundingClientRect()).filter(box => box.width + box.height > 1).length);
  const cut = [...page.querySelectorAll("svg text")].filter(text => {
    const box = text.getBoundingClientRect(), around = text.closest("svg").getBoundingClientRect();
    return box.left < around.left - 2 || box.right > around.right + 2;
  }).map(text => text.textContent);
  const root = page.documentElement;
  const ink = [page.body, page.querySelector("svg text")].map(
    part => page.defaultView.getComputedStyle(part)[part === page.body ? "color" : "fill"]);
  document.body.textContent = "found: " + JSON.stringify(
    {charts, cut, width: root.scrollWidth, room: root.clientWidth, ink});
});
</script>
"""


def _run(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Run:
    """Everything that a page can show, and names and errors that are markup."""
    names = {"baseline": 300, "baseline-no-lock": 400, "pipeline": 600, "in-process": 700}
    windows = []
    for number in range(1, 6):
        for name, rate in names.items():
            n = rate + number
            usual_ms = 10_000 / n
            latencies = [usual_ms * (1 + index % 7 / 20) for index in range(n - 3)]
            window = repeat_of(name, number, [*latencies, *[40 * usual_ms] * 3], 1.0)
            if name == "in-process":
                window = replace(window, records=[], images_per_s=float(n))
            if name == "pipeline":
                counts = {"items": n, "failed_items": 0, "queue_ms": 1.0, "forward_ms": 2.0}
                sizes = {"batches_by_size": {"1": 10, "4": 100}}
                reasons = {"batches_by_reason": {"full": 100, "idle": 10}}
                window = replace(window, details={"nodes": {"model": counts | sizes | reasons}})
            windows.append(window)
    run = run_of(list(names), windows)
    run.workloads[0].parts.append(PartRun("engine-alone", "the model", {"1": 250.0}, 2, ""))
    times = {"decode": 1.0, "lock": 20.0, "infer": 5.0}
    asked = [StagedRequest(30.0, times)] * 3
    run.workloads[0].stages.append(StageRun("baseline", 10, [], asked, ""))
    # Beside a baseline that fails nothing would be proven of the first workload.
    alone, *others = (window for window in windows if window.variant == "baseline")
    failed = replace(alone.records[0], failed_images=1, error="INTERNAL: <b>no engine</b>")
    alone = replace(alone, records=[failed, *alone.records[1:]])
    run.workloads.append(
        replace(run.workloads[0], name="a <b> model", windows=[alone, *others], stages=[])
    )
    return run


@pytest.fixture(scope="module")
def folder(
    repeat_of: Callable[..., Window],
    run_of: Callable[..., Run],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A measured folder with its reports."""
    made = tmp_path_factory.mktemp("measured")
    raw_files.write(made, _run(repeat_of, run_of))
    report.build(made, PAGES)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """Its page."""
    return (folder / report.HTML_FILE).read_text(encoding="utf-8")


class _Reader(HTMLParser):
    """Elements in their order, each with its attributes, and the text without markup."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader


def test_it_is_one_file_that_loads_nothing(page: str) -> None:
    for name, attributes in _read(page).elements:
        assert name not in {"script", "iframe", "img"}
        for key, value in attributes.items():
            if key in {"src", "href", "xlink:href"}:
                assert (value or "").startswith(("#", "data:")), (name, key, value)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)


def test_the_verdict_comes_first_then_three_charts_with_the_waterfall_before_the_others(
    page: str,
) -> None:
    first = page[: page.index("<details")]
    order = ["Yes, switch: ", "The gain is made of", "paired repeats, taken in turns", "<svg"]
    assert [first.index(text) for text in order] == sorted(first.index(text) for text in order)
    assert first.count("<svg") == 3
    titles = re.findall("<h3>(.*)</h3>", first)
    assert titles[-3:] == ["What each change is worth", "Throughput", "Response time"]
    assert first.count("<table") == 3


def test_what_is_folded_is_all_there(page: str) -> None:
    for summary in (
        "What each change is worth",
        "Throughput and response time",
        "Utilisation",
        "Where the time of a request goes",
        "Batch sizes, and why batches left",
        "Settings",
        "Warnings: 2",
    ):
        assert f"<summary>{summary}" in page
    text = _read(page).text
    assert "images without a right answer" in text
    assert "never has images of several requests in one batch" in text
    assert "INTERNAL: <b>no engine</b>" in text


def test_every_chart_has_marks_a_description_and_the_colours_of_the_theme(page: str) -> None:
    assert _checked_charts(page) == CHARTS


def _checked_charts(page: str) -> int:
    """How many charts a page has, all of which show something, in colours of its themes."""
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for chart in charts:
        assert 'class="mark"' in chart
        assert re.search(r'aria-label="[^"]{20,}"', chart)
        assert not re.findall(r"#[0-9a-f]{3,6}[;\"]", chart)
        assert "DejaVu" not in chart
    for opening in re.findall(r'<div class="scroll"[^>]*>', page):
        assert 'role="region" aria-label="Table: ' in opening  # a stop of the keyboard has a name
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for name in set(re.findall(r"var\((--[\w-]+)\)", page)):
        assert page.count(f"{name}:") == 3, name  # light, dark and paper
    return len(charts)


def test_a_sweep_has_its_sentence_first_and_its_two_charts(
    repeat_of: Callable[..., Window], run_of: Callable[..., Run], tmp_path: Path
) -> None:
    windows = [
        replace(repeat_of(name, n, [clients * 1000 / rate] * rate, 1.0), clients=clients)
        for clients, n in ((1, 1), (1, 2), (4, 1), (4, 2))
        for name, rate in (("baseline", 100), ("pipeline", 150))
    ]
    run = run_of(["baseline", "pipeline"], windows)
    swept = {"clients": [1, 4], "tp99_limit_ms": 15.0}
    raw_files.write(tmp_path, replace(run, kind="sweep", settings={**run.settings, **swept}))
    report.build(tmp_path, PAGES)
    page = (tmp_path / report.HTML_FILE).read_text()
    assert _checked_charts(page) == 2
    assert page.index("serves the most with TP99 &lt;= 15 ms") < page.index("<svg")
    assert json.loads((tmp_path / report.SUMMARY_FILE).read_text())["workloads"][0]["name"]


def test_without_batch_counts_it_is_told_whether_batching_is_off(
    repeat_of: Callable[..., Window], run_of: Callable[..., Run]
) -> None:
    run = run_of(["pipeline"], [repeat_of("pipeline", 1, [10.0] * 100, 1.0)])
    server = run.workloads[0].variants[0].server
    assert server is not None
    for settings, remark in (
        ({"max_batch_size": "1"}, "Batching is off in `pipeline`"),
        ({"max_batch_size": "4"}, "`pipeline`: its server did not tell how large"),
    ):
        server["settings"] = settings
        (told,) = batch_remarks(summarise(run, run.workloads[0]), [])
        assert told.startswith(remark)


def test_the_summary_keeps_to_its_schema(folder: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    summary = json.loads((folder / report.SUMMARY_FILE).read_text())
    checker = jsonschema.validators.validator_for(schema)
    checker.check_schema(schema)
    for file in (folder / report.SUMMARY_FILE, PUBLISHED / report.SUMMARY_FILE):
        checker(schema).validate(json.loads(file.read_text()))
    workload, alone = summary["workloads"]
    assert workload["verdict"]["decision"] == "switch"
    assert workload["verdict"]["gain"]["repeats"] == 5
    assert alone["variants"][0]["failed_images"] == 1
    assert workload["batches"][0]["by_size"] == {"1": 50, "4": 500}
    # All of it is described: a value of another name or kind would not pass.
    for wrong in ({**summary, "more": 1}, {**summary, "started": 1}):
        with pytest.raises(jsonschema.ValidationError):
            checker(schema).validate(wrong)


def _in_browser(page: str, folder: Path, width_px: int, *flags: str) -> tuple[dict[str, Any], str]:
    """What the page measures as a frame of that width, and what the browser's console said."""
    assert CHROMIUM is not None
    frame = f'<iframe width="{width_px}" height="800" srcdoc="{html.escape(page)}"></iframe>'
    around = folder / f"around-{width_px}.html"
    around.write_text(f"<!DOCTYPE html><body>{frame}{_MEASURE}</body>", encoding="utf-8")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", *flags),
            *("--dump-dom", around.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = html.unescape(done.stdout).partition("found: ")[2]
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.JSONDecoder().raw_decode(found)[0], console


def _as_computed(colour: str) -> str:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return f"rgb({red}, {green}, {blue})"


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
@pytest.mark.parametrize(("width_px", "theme"), [(375, "light"), (1280, "dark")])
def test_a_browser_shows_every_chart_on_a_phone_and_on_a_screen_in_its_theme(
    width_px: int, theme: str, page: str, tmp_path: Path
) -> None:
    dark = theme == "dark"
    flags = ["--force-dark-mode"] if dark else []
    found, console = _in_browser(page, tmp_path, width_px, *flags)
    assert console == ""
    assert len(found["charts"]) == CHARTS
    assert min(found["charts"]) > 0
    assert found["cut"] == []
    assert found["width"] <= found["room"]
    # Of the page's text, and of the numbers on a chart's scale.
    assert found["ink"] == [_as_computed(THEME[name][dark]) for name in ("ink", "muted")]
