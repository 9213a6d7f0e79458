"""The files in deploy/: each linted by its own tool where that is here, and what they refer to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from interfaces.service import PORT
from service.options.given import OTHER_VARIABLES, PREFIX, gather
from service.options.server_arguments import parse_arguments, server_options
from service.options.validation import handler_settings, server_settings
from tests.ports import free_port
from tests.serving import ServerProcess

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = DEPLOY / "Containerfile"
HEALTH_CHECK = DEPLOY / "container_health.py"
UNIT = DEPLOY / "systemd" / "thriftpipe.service"
COMPOSE = DEPLOY / "compose.yaml"
# What all processes of a server need beyond --drain-timeout-s.
LEAVING_S = 11


def tool(name: str) -> str:
    """The path of a program, beside this interpreter first."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def instructions() -> Iterator[tuple[str, str]]:
    """The Containerfile's instructions and their arguments, without comments."""
    text = re.sub(r"(?m)^#.*\n", "", CONTAINERFILE.read_text()).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, arguments = line.partition(" ")
        yield name, arguments


def unit() -> list[tuple[str, str]]:
    """The keys of the unit, some of them more than once."""
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#"]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def drain_timeout_s() -> float:
    return server_settings(parse_arguments(["--handler", "null"])).drain_timeout_s


def test_hadolint_has_no_complaint() -> None:
    done = subprocess.run([tool("hadolint"), CONTAINERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_gets_all_packages_and_extras_that_there_are() -> None:
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in sent)
    setup = (ROOT / "setup.cfg").read_text()
    found = re.search(r"\[options\.packages\.find\]\ninclude =\n((?: .*\n)+)", setup)
    assert found
    assert {name.strip("* ") for name in found[1].split()} <= sent
    installs = [arguments for name, arguments in instructions() if name == "RUN"]
    extras = set(re.findall(r"'\.\[([\w,]+)\]'", " ".join(installs)))
    assert len(extras) == 3
    known = set(re.findall(r"(?m)^(\w[\w-]*) =$", setup.partition("extras_require]")[2]))
    assert {name for extra in extras for name in extra.split(",")} <= known
    # What the options of the image and of compose.yaml need.
    assert all({"server", "metrics", "otel", "zoo"} <= set(extra.split(",")) for extra in extras)


def test_the_image_sets_only_known_variables() -> None:
    names = set(re.findall(rf"{PREFIX}\w+", CONTAINERFILE.read_text()))
    options = {f"{PREFIX}{described.name.upper()}" for described in server_options()}
    assert names <= options | OTHER_VARIABLES
    assert ("EXPOSE", str(PORT)) in instructions()


def test_the_health_check_asks_where_the_server_really_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable counts for more than the file, whose path is meant from the server's folder."""
    port = free_port()
    (tmp_path / "server.toml").write_text("[server]\nport = 1\nhost = '0.0.0.0'\n")
    words = ("--handler", "null", "--config=server.toml", "--drain-delay-s", "3600")
    monkeypatch.setenv("THRIFTPIPE_PORT", str(port))
    server = ServerProcess(("-m", "service", *words), tmp_path)
    monkeypatch.delenv("THRIFTPIPE_PORT")

    def asked() -> tuple[int, str]:
        command = [sys.executable, HEALTH_CHECK, str(server.process.pid)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout

    try:
        server.read_until("ready: ")
        assert asked() == (0, "ready\n")
        server.process.terminate()
        server.read_until("serving on for --drain-delay-s")
        assert asked() == (1, "not ready: the server stops: SIGTERM\n")
    finally:
        server.close()


def test_the_image_has_its_health_check() -> None:
    found = dict(instructions())
    program = re.search(r'CMD \["python", "(.+)"\]', found["HEALTHCHECK"])
    assert program
    folder = str(Path(program[1]).parent)
    copies = [arguments for name, arguments in instructions() if name == "COPY"]
    assert f"deploy/{HEALTH_CHECK.name} {folder}/" in copies
    assert f"!deploy/{HEALTH_CHECK.name}" in (DEPLOY / "Containerfile.dockerignore").read_text()


def test_each_stage_that_is_named_is_there_before() -> None:
    stages: set[str] = set()
    for name, arguments in instructions():
        if name == "FROM":
            image, _, stage = arguments.partition(" AS ")
            assert image == "${PYTHON_IMAGE}" or image in stages
            stages.add(stage)
        for source in re.findall(r"--from=(\S+)", arguments):
            assert source in stages
    assert {"cpu", "gpu", "cluster"} <= stages


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With a program in place of the one that an installation has."""
    installed = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/thriftpipe/bin/python", sys.executable)
    installed.write_text(text)
    shutil.copytree(DEPLOY / "systemd" / "thriftpipe.service.d", tmp_path / f"{UNIT.name}.d")
    command = [tool("systemd-analyze"), "verify", "--man=no", str(installed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_confined() -> None:
    """The level is systemd's own: 0 for no exposure, 10 for all; above 3 is "medium"."""
    command = [tool("systemd-analyze"), "security", "--offline=true", "--threshold=30", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_unit_waits_for_the_drain() -> None:
    keys = dict(unit())
    assert int(keys["TimeoutStopSec"].rstrip("s")) >= drain_timeout_s() + LEAVING_S
    assert keys["Type"] == "notify"
    assert (keys["RestartPreventExitStatus"], keys["OOMPolicy"]) == ("2", "continue")
    assert keys["ExecStart"].endswith(" -m service --config /etc/thriftpipe/server.toml")


def test_the_example_of_a_file_can_be_served(tmp_path: Path) -> None:
    path = DEPLOY / "server.toml"
    options = parse_arguments(gather(["--config", str(path)], {}).words)
    assert handler_settings(options).config is None
    assert server_settings(options).port == PORT
    # What is commented out has names and values that would be taken, too.
    text = re.sub(r"(?m)^# ([\w-]+ = )", r"\1", path.read_text())
    (tmp_path / "server.toml").write_text(text)
    given = gather(["--config", str(tmp_path / "server.toml")], {})
    assert {"model", "labels", "config", "log-format"} <= {one.name for one in given.options}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def test_compose_refers_to_what_there_is() -> None:
    services, volumes = compose()["services"], compose()["volumes"]
    for service in services.values():
        for name in service.get("depends_on", ()):
            assert name in services
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in volumes
    build = services["thriftpipe"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == CONTAINERFILE
    assert f" AS {build['target']}\n" in CONTAINERFILE.read_text()


def test_compose_starts_a_server_that_takes_its_settings() -> None:
    service = compose()["services"]["thriftpipe"]
    assert all(isinstance(value, str) for value in service["environment"].values())
    given = gather(["--handler", "null"], service["environment"])
    settings = server_settings(parse_arguments(given.words))
    assert int(service["stop_grace_period"].rstrip("s")) >= settings.drain_timeout_s + LEAVING_S
    in_container, plain = (
        yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
        for name in ("compose.yml", "prometheus.yml")
    )
    (group,) = in_container["scrape_configs"][0]["static_configs"]
    assert group["targets"] == [f"thriftpipe:{settings.metrics_port}"]
    command = compose()["services"]["prometheus"]["command"]
    assert "--config.file=/etc/prometheus/compose.yml" in command
    # But for the address it is what is used without containers.
    group["targets"] = plain["scrape_configs"][0]["static_configs"][0]["targets"]
    assert in_container == plain


def test_grafana_gets_its_datasource_and_dashboard() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards" / "thriftpipe.yaml").read_text())[
        "providers"
    ]
    mounts = compose()["services"]["grafana"]["volumes"]
    assert f"./grafana/thriftpipe.json:{provider['options']['path']}/thriftpipe.json:ro" in mounts


def test_docker_compose_takes_the_file() -> None:
    command = [tool("docker"), "compose"]
    if subprocess.run([*command, "version"], capture_output=True).returncode:
        pytest.skip("docker has no plugin compose here")
    done = subprocess.run([*command, "-f", COMPOSE, "config", "--quiet"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
