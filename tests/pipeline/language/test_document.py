"""The document: files that cannot be read, and values that are changed."""

from pathlib import Path

import pytest

from pipeline.config import parse_config
from pipeline.errors import PipelineConfigError
from pipeline.language.document import apply_overrides, read_toml

DECODE = {"backend": "DecodeMat"}


def test_a_missing_or_broken_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        PipelineConfigError, match=r"cannot read the configuration: there is no file .*none\.toml"
    ):
        read_toml(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = [1,")
    with pytest.raises(PipelineConfigError, match=r"broken\.toml is not valid TOML"):
        read_toml(broken)


def test_overrides_replace_globals_and_node_keys_and_leave_the_original_alone() -> None:
    document = {"batching_timeout": 5, "a": dict(DECODE)}
    changed = apply_overrides(
        document, {"batching_timeout": "0", "a.instance_num": "3", "a.backend": "S[DecodeMat]"}
    )
    assert changed == {
        "batching_timeout": 0,
        "a": {"backend": "S[DecodeMat]", "instance_num": 3},
    }
    assert document == {"batching_timeout": 5, "a": DECODE}


def test_overrides_reach_every_form_of_a_document() -> None:
    document = {"global": {"max": 1}, "rec": {"next": "rec.2", "2": {"next": "end"}}, "end": {}}
    changed = apply_overrides(document, {"max": "2", "rec.2.next": "last", "rec.max": "3"})
    assert changed == {
        "max": 2,
        "rec": {"next": "rec.2", "max": 3},
        "rec.2": {"next": "last"},
        "end": {},
    }
    flat = {"backend": "DecodeMat", "instance_num": 1}
    assert (
        parse_config(apply_overrides(flat, {"instance_num": "2"})).nodes["node"].instance_num == 2
    )


def test_an_override_of_an_unknown_node_names_the_closest() -> None:
    with pytest.raises(PipelineConfigError, match="did you mean 'decoder'"):
        apply_overrides({"decoder": DECODE}, {"decodr.max": "2"})
