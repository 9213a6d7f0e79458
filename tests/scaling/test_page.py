"""docs/scaling.md: all of its numbers come from the results, and are those of today."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from loadtest.records.raw_files import write_table
from scaling.command_line import main
from scaling.costs import read_costs
from scaling.errors import ScalingError
from scaling.page import filled
from scaling.simulation import described, simulate
from scaling.study import read_study, scenarios
from scaling.validation import CALLS, COLUMNS, servers
from tests.commands import run_here

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/scaling.md"
# Names with digits in them.
_NAMES = re.compile(r"ResNet-50|EfficientNet-Lite0|H[12]00")


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_has_the_numbers_of_the_results(text: str) -> None:
    assert filled(text, ROOT / "results") == text, "write it: python -m scaling page"


def test_the_report_is_that_of_the_raw_data(tmp_path: Path) -> None:
    folder = ROOT / "results/scaling"
    for name in ("run.json", "calls.csv.gz", "simulation.json"):
        shutil.copy(folder / name, tmp_path)
    done = run_here(main, "report", "--output-dir", str(tmp_path), "--results", str(folder.parent))
    assert done.returncode == 0
    made = tmp_path / "report.md"
    assert made.read_text(encoding="utf-8") == (folder / "report.md").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.glob("*.png")} == {"validation.png", "study.png"}


def test_the_page_command_writes_the_page(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    emptied = re.sub(r"(<!-- scaling: \S+ -->\n).*?(<!-- end -->)", r"\1\2", text, flags=re.DOTALL)
    assert emptied != text
    page.write_text(emptied, encoding="utf-8")
    done = run_here(main, "page", "--page", str(page), "--results", str(ROOT / "results"))
    assert done.returncode == 0
    assert page.read_text(encoding="utf-8") == text


def test_the_simulation_agrees_with_the_measured_servers() -> None:
    found = [*servers(ROOT / "results/scaling")]
    assert [it.title for it in found if not it.holds] == []
    assert {it.title.partition(",")[0] for it in found} == {"1 server", "2 servers", "3 servers"}


def test_the_simulations_are_those_of_the_present_code() -> None:
    rows = read_study(ROOT / "results/scaling")["rows"]
    # One stands for all: the cheapest of those of 1,000 replicas.
    row = next(row for row in rows if row["routing"] == "random")
    cluster, load = next(
        (cluster, load)
        for _, cluster, load in scenarios(read_costs(ROOT / "results"))
        if json.loads(json.dumps(described(cluster, load)))
        == {"cluster": row["cluster"], "load": row["load"]}
    )
    # Processors and versions of Python may round the last digit otherwise.
    expected = pytest.approx(row["row"], rel=1e-6)
    assert simulate(cluster, load).row() == expected, "simulate again: python -m scaling simulate"


def test_calls_that_failed_are_told(tmp_path: Path) -> None:
    shutil.copy(ROOT / "results/scaling/run.json", tmp_path)
    write_table(tmp_path, CALLS, COLUMNS, [[0, 0, 1.5, 0.1, 99.0, 0, "failed"]])
    with pytest.raises(ScalingError, match="1 calls failed"):
        next(servers(tmp_path))


def test_other_servers_are_not_compared(tmp_path: Path) -> None:
    text = (ROOT / "results/scaling/run.json").read_text(encoding="utf-8")
    assert '"batch_ms": 80.0' in text
    (tmp_path / "run.json").write_text(text.replace('"batch_ms": 80.0', '"batch_ms": 8.0'))
    with pytest.raises(ScalingError, match="servers with other settings: measure again"):
        next(servers(tmp_path))


def test_no_number_is_typed_by_hand(text: str) -> None:
    prose = re.sub(r"<!-- scaling: .*?<!-- end -->", "", text, flags=re.DOTALL)
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", prose, flags=re.DOTALL)
    assert re.findall(r".*\d.*", _NAMES.sub("", prose)) == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("<!-- scaling: plan -->", "<!-- scaling: plans -->", r"no generated part \['plans'\]"),
        ("<!-- scaling: sizes -->", "", r"the page lacks .* for \['sizes'\]"),
    ],
)
def test_parts_that_are_not_there_are_told(
    before: str, after: str, message: str, text: str
) -> None:
    with pytest.raises(ScalingError, match=message):
        filled(text.replace(before, after), ROOT / "results")
