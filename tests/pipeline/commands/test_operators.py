"""`python -m pipeline operators`, and that the README lists what it lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.backends.filters import registered_filters
from pipeline.backends.registry import registered_backends
from pipeline.commands.dispatch import main
from pipeline.commands.operators import example
from pipeline.config import read_config
from pipeline.language.document import parse_toml
from pipeline.language.settings import SCHEDULING
from pipeline.language.torchpipe_names import BACKEND, KEY, torchpipe_names

ROOT = Path(__file__).parents[3]
README = re.sub(
    r"```.*?```", "", (ROOT / "pipeline" / "README.md").read_text("utf-8"), flags=re.DOTALL
)
# Without those that tests of the same process have registered.
OWN = {
    name: cls
    for name, cls in registered_backends().items()
    if cls.__module__.startswith("pipeline.backends") and not hasattr(cls, "adapted")
}
OWN_FILTERS = {
    name: function
    for name, function in registered_filters().items()
    if function.__module__.startswith("pipeline.")
}


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["operators", *arguments])
    return code, capsys.readouterr().out


def test_all_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, text = printed(capsys)
    assert code == 0
    words = set(re.findall(r"[\w:]+", text))
    assert words >= {*OWN, *OWN_FILTERS, *(setting.name for setting in SCHEDULING)}
    assert "FixTensor" not in words


def test_one_operator(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, text = printed(capsys, "Mat2Tensor")
    assert code == 0
    assert text.startswith("operator Mat2Tensor\nA matrix in, a tensor of the same type out.")
    assert re.search(r'device +cpu +- +where the tensor lies +"cpu", "gpu" or "cuda"', text)
    assert "torchpipe's backend Mat2Tensor is here; device is cpu unless it is given" in text
    assert '    [node]\n    backend = "Mat2Tensor"\n' in text
    assert "on a CPU use ResizeMat" in printed(capsys, "ResizeTensor")[1]
    assert printed(capsys, "CvtColorMat")[1].startswith("operator CvtColorMat, also cvtColorMat\n")


def test_filters_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = printed(capsys, "or")
    assert code == 0
    assert "filter or, else\nRuns for those without a result" in text
    assert 'the same as filter = "or"' in text
    assert "read by: every node" in text
    code, text = printed(capsys, "max_h")
    assert re.search(r"max_h +\(needed\) +pixels +the greatest height", text)
    assert "read by: FixRatioResizeMat, ResizePadMat" in text
    code, text = printed(capsys, "Sleep::time")
    assert code == 0
    assert re.search(r"time +10 +ms +how long an item takes", text)


def test_a_name_of_torchpipes_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = printed(capsys, "save_engine")
    assert code == 1
    assert "torchpipe's key save_engine is not supported here: use model::cache" in text
    assert "(v0: backend/tensorrt/TensorrtTensor10.cpp)" in text
    code, text = printed(capsys, "FixTensor")
    assert code == 0
    assert "torchpipe's backend FixTensor is ignored: the engine's node checks shapes" in text


def test_a_slip_is_told_with_the_closest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "ResizeMatt"]) == 2
    message = capsys.readouterr().err
    assert "there is no operator, filter or key 'ResizeMatt'; did you mean 'ResizeMat'?" in message


def test_backends_of_a_file_are_listed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from pipeline import register_backend\n"
        "@register_backend(name='OperatorsTestScale', keys=['factor'])\n"
        "class Scale:\n"
        '    """Multiplies."""\n'
        "    def forward(self, items):\n"
        "        pass\n"
    )
    code, text = printed(capsys, "OperatorsTestScale", "--backends", str(path))
    assert code == 0
    assert text.startswith("operator OperatorsTestScale\nMultiplies.")
    assert "factor" in text


@pytest.mark.parametrize("name", OWN)
def test_every_example_can_be_read(name: str) -> None:
    # What an example jumps to is another node.
    document = {**parse_toml(example(name, OWN[name])), "classify": {"backend": "Identity"}}
    _, mistakes = read_config(document)
    assert not mistakes


@pytest.mark.parametrize("name", OWN)
def test_every_operator_and_setting_says_what_it_is_for(name: str) -> None:
    assert OWN[name].__doc__
    for setting in OWN[name].settings:
        if not setting.name.startswith("test_"):
            assert setting.help
            assert (
                not any(word in setting.expected for word in ("pixels,", "milli")) or setting.unit
            )


def test_the_readme_lists_the_same_operators_and_filters() -> None:
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", README))))
    for registered in (OWN, OWN_FILTERS):
        for it in set(registered.values()):
            names = {name for name, other in registered.items() if other is it}
            assert names & told, f"a row in pipeline/README.md is missing: {names}"
    tables = re.findall(r"\n\| (?:operator|filter) \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", README)
    rows = [row for table in tables for row in table.splitlines()]
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert len(listed) > 40
    assert listed <= OWN.keys() | OWN_FILTERS.keys(), "no longer here"


def test_the_readme_tells_every_key_that_operators_have() -> None:
    told = set(re.findall(r"`\"?([\w:]+)", README))
    for cls in set(OWN.values()):
        for setting in cls.settings:
            assert setting.name in told, f"pipeline/README.md does not tell {setting.name}"


def test_the_table_has_a_row_for_each_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = printed(capsys, "--torchpipe")
    assert code == 0
    names = set(re.findall(r"`([^`]+)`", text))
    assert names >= {*torchpipe_names(BACKEND), *torchpipe_names(KEY)}
