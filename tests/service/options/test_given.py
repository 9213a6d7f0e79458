"""Options from the command line, the environment and the server's file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from thriftpy2.rpc import make_client

from idl import inference
from service.errors import ConfigurationError
from service.options.given import OTHER_VARIABLES, PREFIX, GivenOptions, gather
from service.options.server_arguments import parse_arguments, server_options
from service.options.validation import handler_settings, server_settings

ROOT = Path(__file__).parents[3]
FILE = "server.toml"
GRAPH = """
[decoder]
backend = "DecodeMat"
next = "server"
[server]
backend = "Identity"
"""
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes files into the folder in which the server runs: write("[server]..."[, name])."""
    monkeypatch.chdir(tmp_path)

    def write_one(text: str, name: str = FILE) -> None:
        (tmp_path / name).write_text(text)

    return write_one


def parsed(arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    return parse_arguments(gather(arguments.split(), environment or {}).words)


def refused(arguments: str, environment: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        gather(arguments.split(), environment or {})
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "environment", "port"),
    [
        ("--port 1", {"THRIFTPIPE_PORT": "2"}, 1),
        ("", {"THRIFTPIPE_PORT": "2"}, 2),
        ("", {"THRIFTPIPE_PORT": ""}, 3),
        ("", {}, 3),
    ],
)
def test_command_line_before_environment_before_file(
    write: Write, arguments: str, environment: Mapping[str, str], port: int
) -> None:
    write("[server]\nhandler = 'null'\nport = 3\n")
    assert parsed(f"--config {FILE} {arguments}", environment).port == port


def test_what_none_of_them_has_is_the_default() -> None:
    assert parsed("--handler null", {"HOME": "/", "THRIFTPIPE_CACHE_DIR": "/x"}).port == 8095


def test_repeated_options_add_up_key_by_key(write: Write) -> None:
    write("[server.set]\na = 1\nb = 1\nc = true\nnode.key = 'x y'\n")
    options = parsed(
        f"--handler pipeline --config {FILE} --set a=3",
        {"THRIFTPIPE_SET": "a=2\nb=2"},
    )
    assert handler_settings(options).overrides == {
        "a": "3",
        "b": "2",
        "c": "true",
        "node.key": "x y",
    }
    write("[server]\nset = ['a=1', 'b=2']\n")
    options = parsed(f"--handler pipeline --config {FILE}")
    assert handler_settings(options).overrides == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("arguments", "environment", "lock"),
    [
        ("", {}, False),
        ("", {"THRIFTPIPE_NO_LOCK": "false"}, True),
        ("--no-lock", {"THRIFTPIPE_NO_LOCK": "0"}, False),
        ("--no-lock=false", {"THRIFTPIPE_NO_LOCK": "yes"}, True),
    ],
)
def test_a_switch_can_be_taken_back(
    write: Write, arguments: str, environment: Mapping[str, str], lock: bool
) -> None:
    write("[server]\nhandler = 'baseline'\nno-lock = true\n")
    assert handler_settings(parsed(f"--config {FILE} {arguments}", environment)).lock == lock


def test_values_of_all_types(write: Write) -> None:
    write(
        "[server]\nhandler = 'pipeline'\ndevices = [1, 0]\nmean = [1, 2.5, 3]\nstd = 2\n"
        "image_formats = ['png']\nidle-timeout-s = 0.5\nworkers = 'auto'\ndrain_delay_s = 2\n"
    )
    options = parsed(f"--config {FILE}")
    handler, server = handler_settings(options), server_settings(options)
    assert (handler.devices, handler.mean, handler.std) == ((1, 0), (1.0, 2.5, 3.0), (2.0,))
    assert (server.image_formats, server.idle_timeout_s) == (("png",), 0.5)
    assert (server.workers, server.drain_delay_s) == (None, 2.0)


def test_a_file_that_was_written_on_windows(write: Write) -> None:
    write("\ufeff[server]\r\nport = 3\r\n")
    assert parsed(f"--handler null --config {FILE}").port == 3


def test_a_graph_beside_the_file_of_the_service(write: Write) -> None:
    write(GRAPH, "graph.toml")
    write("[server]\nhandler = 'pipeline'\nconfig = 'graph.toml'\n")
    assert parsed(f"--config {FILE}").config == "graph.toml"
    write("[server]\nhandler = 'pipeline'\n")
    for words in (f"--config {FILE} --config graph.toml", f"--config=graph.toml --config={FILE}"):
        options = parsed(words)
        assert (options.handler, options.config) == ("pipeline", "graph.toml")
    options = parsed("--config graph.toml", {"THRIFTPIPE_CONFIG": FILE})
    assert (options.handler, options.config) == ("pipeline", "graph.toml")


@pytest.mark.parametrize(
    "text",
    [
        GRAPH,
        "[server]\nbackend = 'SyncTensor[TensorrtTensor]'\nmodel = 'resnet50'\n",
        "[server]\nport = 1\n[engine]\nbackend = 'SyncTensor[TensorrtTensor]'\n",
        "[servers]\nmodel = 'resnet50'\n",
        "server = 1\n",
        "not TOML",
        "[server]\nbackend = not TOML\n",
    ],
)
def test_what_could_be_a_graph_is_one(write: Write, text: str) -> None:
    write(text)
    assert parsed(f"--handler pipeline --config {FILE}").config == FILE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "server.toml: unknown option 'prot'; did you mean 'port'? Known: "),
        ("port = 'x'", "server.toml: port: takes a port, got 'x'"),
        ("port = true", "server.toml: port: takes a port, got True"),
        ("port = [1, 2]", "server.toml: port: takes a port, got '1,2'"),
        ("port = 70000", "server.toml: port: must be 0 to 65535, got 70000"),
        ("port = {a = 1}", "server.toml: port: takes a port, got {'a': 1}"),
        ("max-queue = 1.5", "server.toml: max-queue: takes a whole number, got '1.5'"),
        ("no_lock = 'yes'", "server.toml: no_lock: takes true or false, got 'yes'"),
        ("max-queue = 1\nmax_queue = 1", "max_queue is there with dashes and with underscores"),
        ("config = 'server.toml'", "names another file with the service's options"),
        ("set = ['a']", "server.toml: set: takes [NODE.]KEY=VALUE"),
        ("host = 1979-05-27", "server.toml: host: takes a text, got datetime.date(1979, 5, 27)"),
        ("port = ", "server.toml is not valid TOML: Invalid value (at line 2, column 8)"),
    ],
)
def test_what_is_wrong_in_the_file_is_told(write: Write, text: str, told: str) -> None:
    write(f"[server]\n{text}\n")
    assert told in refused(f"--handler null --config {FILE}")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "PROT",
            "1",
            "THRIFTPIPE_PROT, which is no option of the service; did you mean 'THRIFTPIPE_PORT'?",
        ),
        ("CACHE_DIRS", "/", "did you mean 'THRIFTPIPE_CACHE_DIR'?"),
        ("max_queue", "1", "did you mean 'THRIFTPIPE_MAX_QUEUE'?"),
        ("PORT", "x", "THRIFTPIPE_PORT: takes a port, got 'x'"),
        ("TRACE_ENDPOINT", "127.0.0.1", "must be a URL beginning with http:// or https://, got"),
        ("TRACE_ENDPOINT", "http:///v1/traces", "must be a URL with a host, and a port from 1 to"),
        ("TRACE_ENDPOINT", "http://a:4318x/", "must be a URL with a host, and a port from 1 to"),
        ("NO_LOCK", "maybe", "THRIFTPIPE_NO_LOCK takes true or false, got 'maybe'"),
        (
            "PORT",
            "tcp://10.0.0.1:8095",
            "got 'tcp://10.0.0.1:8095'; Kubernetes sets such variables",
        ),
        ("SERVICE_HOST", "10.0.0.1", "enableServiceLinks: false"),
        ("PORT_8095_TCP_PROTO", "tcp", "enableServiceLinks: false"),
        ("GPU_SERVICE_PORT_METRICS", "9095", "enableServiceLinks: false"),
    ],
)
def test_what_is_wrong_in_the_environment_is_told(name: str, text: str, told: str) -> None:
    assert told in refused("--handler null", {f"{PREFIX}{name}": text})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("batching_timeout = 2\n[server]\nport = 1\n", "this file has batching_timeout"),
        ("[server]\nport = 1\n[model]\nname = 'x'\n", "this file has [model]"),
        ("port = 1\n", "this file has port"),
        ("[service]\nmax-queue = 1\n", "this file has [service]"),
    ],
)
def test_options_that_stand_elsewhere_are_told(write: Write, text: str, told: str) -> None:
    write(text)
    found = refused(f"--config {FILE}")
    assert found.startswith("server.toml: options of the service belong into the table [server]")
    assert found.endswith(told)


def test_two_files_of_the_service_are_one_too_many(write: Write) -> None:
    write("[server]\n")
    write("[server]\n", "other.toml")
    assert "both have the service's options" in refused(f"--config {FILE} --config other.toml")


def test_help_comes_before_any_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("--help", {"THRIFTPIPE_PROT": "1"})
    assert ended.value.code == 0
    assert "--port" in capsys.readouterr().out


def test_a_mistake_names_where_its_options_are_from(write: Write) -> None:
    write("[server]\nhandler = 'pipeline'\nmax_batch_size = 8\nmean = 1\n")
    given = gather(["--config", FILE], {"THRIFTPIPE_MAX_FRAME_BYTES": "2"})
    for mistake, origin in (
        ("--max-batch-size: no", " (--max-batch-size is from server.toml)"),
        ("max_frame_bytes = 2", " (--max-frame-bytes is from THRIFTPIPE_MAX_FRAME_BYTES)"),
        ("--mean-x, mean", ""),
        ("--handler", " (--handler is from server.toml)"),
    ):
        assert given.traced(mistake) == mistake + origin
    assert gather(["--port", "1"], {}).traced("--port is wrong") == "--port is wrong"


def test_the_words_are_those_that_were_given() -> None:
    words = ["--handler", "null", "--unready-s", "3", "--prot", "1", "x"]
    given: GivenOptions = gather(words, {})
    assert given.words == ["--handler=null", "--drain-delay-s=3", "--prot", "1", "x"]
    assert str(given) == "--handler null (command line), --drain-delay-s 3 (command line)"


def test_a_password_in_a_url_is_not_told() -> None:
    url = "https://me:secret@traces.example/v1/traces"
    given = gather(["--trace-endpoint", url], {})
    assert given.words == [f"--trace-endpoint={url}"]
    assert str(given) == "--trace-endpoint https://***@traces.example/v1/traces (command line)"


def test_all_variables_of_the_project_are_known() -> None:
    """What is set for one program must not be a mistake for the server."""
    listed = subprocess.run(
        ["git", "grep", "-ohE", rf"\b{PREFIX}[A-Z_0-9]*[A-Z]\b", "--", "*.py", "Makefile", ".ci"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("no checkout of git")
    names = {f"{PREFIX}{described.name.upper()}" for described in server_options()}
    mistaken = set(re.findall(rf"{PREFIX}\w+", Path(__file__).read_text()))
    unknown = set(listed.stdout.split()) - names - OTHER_VARIABLES - mistaken
    assert not unknown, "add them to OTHER_VARIABLES in service/options/given.py"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_says_where_its_options_are_from(
    start: Callable[..., Any],
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    workers: str,
) -> None:
    write("[server]\nhandler = 'null'\nport = 1\nhost = 'localhost'\nmax_queue = 7\n")
    monkeypatch.setenv("THRIFTPIPE_WORKERS", workers)
    monkeypatch.setenv("THRIFTPIPE_HOST", "127.0.0.1")
    server = start("-m", "service", "--config", FILE, "--port", "0")
    said = server.read_until("options: ").partition("options: ")[2]
    service, port = inference.InferenceService, server.port()
    with closing(make_client(service, "127.0.0.1", port)) as client:
        info = client.server_info()
    assert info.settings["options"] == said
    assert sorted(said.split(", ")) == [
        "--handler null (server.toml)",
        "--host 127.0.0.1 (THRIFTPIPE_HOST)",
        "--max-queue 7 (server.toml)",
        "--port 0 (command line)",
        f"--workers {workers} (THRIFTPIPE_WORKERS)",
    ]
    server.process.terminate()
    assert server.wait() == 0
