"""What a file written for torchpipe is told where something of it is not here."""

from __future__ import annotations

import pytest

from pipeline.backends.registry import backend_settings
from pipeline.config import parse_config
from pipeline.errors import PipelineConfigError
from pipeline.language.settings import SCHEDULING
from pipeline.language.torchpipe_names import (
    UNSUPPORTED_BACKENDS,
    UNSUPPORTED_KEYS,
    unknown_backend,
    unknown_key,
)


def refusal(node: dict[str, object]) -> str:
    with pytest.raises(PipelineConfigError) as caught:
        parse_config({"node": node})
    return str(caught.value)


def test_backends() -> None:
    message = refusal({"backend": "S[DecodeMat,RoundRobin]"})
    assert (
        "torchpipe's backend 'RoundRobin' is not supported here: every node schedules itself"
        in message
    )


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("priority", "streams have one priority here"),
        ("Torch::backend", 'write it as one expression: backend = "Torch[...]"'),
        ("A::B::dependency", 'write it as one expression: backend = "A::B[...]"'),
    ],
)
def test_keys(key: str, advice: str) -> None:
    message = refusal({"backend": "DecodeMat", key: 1})
    assert f"[node]: torchpipe's key {key!r} is not supported here: {advice}" in message


def test_what_is_here_is_not_listed_and_typos_are_told_as_ever() -> None:
    for name in UNSUPPORTED_BACKENDS:
        with pytest.raises(PipelineConfigError, match="not supported here"):
            parse_config({"node": {"backend": name}})
    assert not UNSUPPORTED_KEYS.keys() & {
        *backend_settings(),
        *(setting.name for setting in SCHEDULING),
    }
    assert "did you mean 'DecodeMat'?" in unknown_backend("DecodeMatt", ["DecodeMat"])
    assert "did you mean 'max'?" in unknown_key("maxx", ["max"])
