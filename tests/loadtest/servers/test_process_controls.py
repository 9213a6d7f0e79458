"""Which rows are added where the pipeline has several processes."""

from __future__ import annotations

import pytest

from loadtest.servers.process_controls import process_controls, with_processes
from loadtest.servers.variants import VARIANTS, parse_variants


@pytest.mark.parametrize(
    ("served", "added"),
    [
        ("baseline,baseline-no-lock,pipeline", {}),
        (
            "baseline,baseline-no-lock,pipeline-4w",
            {"baseline": "baseline-4w", "baseline-no-lock": "baseline-no-lock-4w"},
        ),
        (
            "baseline,pipeline-5w,pipeline-gpu-4w",
            {"baseline": "baseline-5w", "pipeline-gpu-4w": "pipeline-gpu-5w"},
        ),
        ("baseline,pipeline,pipeline-gpu-4w", {"pipeline-gpu-4w": "pipeline-gpu"}),
        ("baseline,baseline-4w,pipeline-4w", {}),
        ("baseline,pipeline-gpu-4w", {}),
    ],
)
def test_every_row_gets_one_with_the_processes_of_the_pipeline(
    served: str, added: dict[str, str]
) -> None:
    controls = process_controls(parse_variants(served))
    assert {name: control.name for name, control in controls.items()} == added
    assert all(control.is_control for control in controls.values())


def test_the_name_says_how_many_processes_the_service_has_chosen() -> None:
    (chosen,) = parse_variants("pipeline-gpu-auto")
    four = with_processes(chosen, 4)
    assert (four.name, four.workers) == ("pipeline-gpu-4w", 4)
    assert with_processes(chosen, 1) == VARIANTS["pipeline-gpu"]
