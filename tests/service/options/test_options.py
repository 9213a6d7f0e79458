"""One description of each option: command line, `--help`, bounds."""

from __future__ import annotations

import pytest

from service.handlers.handler_settings import HandlerSettings
from service.options.server_arguments import parse_arguments
from service.options.server_settings import ServerSettings
from service.options.validation import handler_settings, server_settings


def test_without_options_the_settings_are_the_defaults() -> None:
    options = parse_arguments(["--handler", "pipeline"])
    assert handler_settings(options) == HandlerSettings()
    assert server_settings(options) == ServerSettings()


def test_each_kind_of_option_reaches_its_setting() -> None:
    options = parse_arguments(
        [
            *("--handler", "pipeline", "--set", "a=1", "--set", "n.b=2", "--devices", "1,0"),
            *("--mean", "1", "--std", "2", "--image-formats", "PNG,jpeg", "--port", "1"),
            *("--idle-timeout-s", "0.5"),
        ]
    )
    handler, server = handler_settings(options), server_settings(options)
    assert handler.overrides == {"a": "1", "n.b": "2"}
    assert (handler.devices, handler.mean, handler.std) == ((1, 0), (1.0,), (2.0,))
    assert (server.image_formats, server.port) == (("png", "jpeg"), 1)
    assert server.idle_timeout_s == 0.5
    assert not handler_settings(parse_arguments(["--handler", "baseline", "--no-lock"])).lock


@pytest.mark.parametrize("name", ["--drain-delay-s", "--unready-s"])
def test_the_drain_delay_has_its_earlier_name_too(name: str) -> None:
    options = parse_arguments(["--handler", "null", name, "3"])
    assert server_settings(options).drain_delay_s == 3.0


def test_the_bounds_are_part_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "0 picks a free one; 0 to 65535 (default: 8095)" in text
    assert "may take to receive a reply; above 0 and finite (default: 30)" in text
