"""The manifests for Kubernetes: against its schemas, and against the service that they start."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

from interfaces.service import PORT
from service.client import Client
from service.options.given import gather
from service.options.server_arguments import parse_arguments
from service.options.server_settings import ServerSettings
from service.options.validation import handler_settings, server_settings
from tests.deploy.manifests import CONTAINERFILE, FOLDER, LEAVING_S, VERSIONS, documents
from tests.promql import selected_series
from tests.service.metrics.metric_names import series_names
from tests.serving import TIMEOUT_S, ServerProcess

BASE = FOLDER / "base"
PLACES = ("base", "gpu")


@cache
def built(place: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER / place], capture_output=True, text=True, check=True
    )
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def base(kind: str) -> dict[str, Any]:
    """A manifest of the base, as it is in its file."""
    kustomization = documents(BASE / "kustomization.yaml")[0]
    found = [one for name in kustomization["resources"] for one in documents(BASE / name)]
    (one,) = (one for one in found if one["kind"] == kind)
    return one


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def words() -> list[str]:
    """The container's command line, with the file that it mounts."""
    arguments = container(base("Deployment"))["args"]
    return [word.replace("/etc/thriftpipe", str(BASE)) for word in arguments]


def of_image() -> dict[str, str]:
    """The variables of the image."""
    names = re.findall(r"\b(THRIFTPIPE_\w+)=(\S+)", CONTAINERFILE.read_text())
    return dict(names)


@cache
def settings() -> ServerSettings:
    """Those of a server that the Deployment starts, read by its own parser."""
    options = parse_arguments(gather(words(), of_image()).words)
    handler_settings(options)
    return server_settings(options)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_keep_to_the_schemas(version: str) -> None:
    names = documents(BASE / "kustomization.yaml")[0]["resources"]
    assert {f"{name}.yaml" for name in ("deployment", "service", "autoscaler", "disruption")} == {
        *names
    }
    for name in names:
        for one in documents(BASE / name):
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("place", PLACES)
def test_what_kustomize_builds_keeps_to_the_schemas(place: str) -> None:
    for one in built(place):
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_manifest_would_be_found() -> None:
    wrong = base("Deployment")
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 60
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriodSecond"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_they_belong_together() -> None:
    deployment, service = base("Deployment"), base("Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        base("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    scaled = base("HorizontalPodAutoscaler")["spec"]
    assert scaled["scaleTargetRef"] == {
        **{key: deployment[key] for key in ("apiVersion", "kind")},
        "name": deployment["metadata"]["name"],
    }
    # Which has the number of pods, so that an apply must not set it.
    assert "replicas" not in deployment["spec"]
    assert scaled["minReplicas"] > base("PodDisruptionBudget")["spec"]["maxUnavailable"]


def test_the_ports_are_those_of_the_server() -> None:
    deployment, found = base("Deployment"), settings()
    assert (found.host, found.metrics_host) == ("0.0.0.0", "0.0.0.0")  # noqa: S104
    ports = {port["name"]: port["containerPort"] for port in container(deployment)["ports"]}
    assert ports == {"thrift": found.port, "metrics": found.metrics_port}
    (port,) = base("Service")["spec"]["ports"]
    assert (port["port"], ports[port["targetPort"]]) == (PORT, found.port)
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(found.metrics_port)


def test_a_pod_has_the_time_to_drain() -> None:
    pod = base("Deployment")["spec"]["template"]["spec"]
    found = settings()
    drain_s = found.drain_delay_s + found.drain_timeout_s
    assert pod["terminationGracePeriodSeconds"] >= drain_s + LEAVING_S
    # Until the nodes have learnt that the pod ends; a preStop would delay SIGTERM by as much.
    assert found.drain_delay_s >= 5
    assert "lifecycle" not in container(base("Deployment"))


def test_the_pod_is_confined_and_can_write_where_it_has_to() -> None:
    pod = base("Deployment")["spec"]["template"]["spec"]
    only = container(base("Deployment"))
    user = re.search(r"--uid (\d+)", CONTAINERFILE.read_text())
    assert user
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user[1])
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # Otherwise Kubernetes sets variables that are taken for options.
    assert pod["enableServiceLinks"] is False
    mounted = {mount["mountPath"]: mount for mount in only["volumeMounts"]}
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in only["volumeMounts"]} == volumes
    assert not any(mounted[path].get("readOnly") for path in (of_image_cache(), "/tmp"))  # noqa: S108
    assert only["resources"]["limits"] == only["resources"]["requests"]


def of_image_cache() -> str:
    return of_image()["THRIFTPIPE_CACHE_DIR"]


@pytest.mark.parametrize("place", PLACES)
def test_a_change_of_the_options_is_a_new_version(place: str) -> None:
    """The Deployment names a ConfigMap whose name has a hash of what is in it."""
    found = {one["kind"]: one for one in built(place)}
    options = found["ConfigMap"]
    assert re.fullmatch(r"thriftpipe-\w{10}", options["metadata"]["name"])
    assert options["data"] == {"server.toml": (BASE / "server.toml").read_text()}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    assert sources["options"]["configMap"]["name"] == options["metadata"]["name"]
    image = container(found["Deployment"])["image"]
    target = {"base": "cpu", "gpu": "gpu"}[place]
    assert image == f"registry.example.com/thriftpipe:{target}"
    assert f" AS {target}\n" in CONTAINERFILE.read_text()
    gpus = container(found["Deployment"])["resources"]["limits"].get("nvidia.com/gpu")
    assert gpus == {"base": None, "gpu": 1}[place]


def rules() -> dict[str, dict[str, Any]]:
    """Those of the adapter, by the metric that each makes."""
    (values,) = documents(FOLDER / "prometheus-adapter.yaml")
    assert values["rules"]["default"] is False
    return {rule["name"]["as"]: rule for rule in values["rules"]["custom"]}


def query(rule: dict[str, Any]) -> str:
    """What the adapter asks Prometheus for the pods of a namespace."""
    series = rule["seriesQuery"].partition("{")[0]
    text: str = rule["metricsQuery"]
    for name, value in (
        ("Series", series),
        ("LabelMatchers", 'namespace="default",pod=~"a|b"'),
        ("GroupBy", "pod"),
    ):
        text = text.replace(f"<<.{name}>>", value)
    assert "<<" not in text
    return text


def test_the_autoscaler_reads_what_the_adapter_makes_of_the_servers_metrics() -> None:
    metrics = base("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert {metric["pods"]["metric"]["name"] for metric in metrics} == set(rules())
    for rule in rules().values():
        for text in (rule["seriesQuery"], query(rule)):
            read = set(selected_series(promql_parser.parse(text)))
            assert read
            assert read <= series_names()
    wait, busy = (metric["pods"]["target"]["averageValue"] for metric in metrics)
    # Pods come before calls are refused, and before the instances have no time left.
    assert int(wait.rstrip("m")) < settings().max_queue_ms
    assert int(busy.rstrip("m")) < 1000


# Of a pod whose images wait 0.5 s each, and of one without any; of nodes that work 0.25 and 0.75 of
# the time of an instance.
SERIES = {
    'thriftpipe_node_queue_seconds_total{namespace="default",pod="a",node="n"}': "0+30x10",
    'thriftpipe_node_queue_seconds_total{namespace="default",pod="b",node="n"}': "0+0x10",
    'thriftpipe_images_total{namespace="default",pod="a",outcome="ok"}': "0+50x10",
    'thriftpipe_images_total{namespace="default",pod="a",outcome="invalid_image"}': "0+10x10",
    'thriftpipe_images_total{namespace="default",pod="b",outcome="ok"}': "0+0x10",
    'thriftpipe_node_forward_seconds_total{namespace="default",pod="a",node="n"}': "0+30x10",
    'thriftpipe_node_forward_seconds_total{namespace="default",pod="a",node="m"}': "0+45x10",
    'thriftpipe_node_working_instances{namespace="default",pod="a",node="n"}': "2+0x10",
    'thriftpipe_node_working_instances{namespace="default",pod="a",node="m"}': "1+0x10",
}
VALUES = {
    "thriftpipe_queue_wait_seconds": {"a": 0.5, "b": 0},
    "thriftpipe_busy_ratio": {"a": 0.75},
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus has it")
def test_prometheus_computes_what_the_autoscaler_is_to_know(tmp_path: Path) -> None:
    tests = [
        {
            "expr": query(rules()[name]),
            "eval_time": "8m",
            "exp_samples": [
                {"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in values.items()
            ],
        }
        for name, values in VALUES.items()
    ]
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    document = {
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}],
    }
    path = tmp_path / "rules_test.yml"
    path.write_text(yaml.safe_dump(document))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def probes() -> Iterator[tuple[str, dict[str, Any]]]:
    only = container(base("Deployment"))
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield name, only[name]["httpGet"]


def ask(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode()
    connection.close()
    return status, text


def test_a_server_with_its_options_answers_the_probes_and_drains() -> None:
    """But for the handler, addresses and ports, and for a shorter time in the end."""
    server = ServerProcess(
        (
            *("-m", "service", *words(), "--handler", "null", "--drain-delay-s", "3600"),
            *("--host", "127.0.0.1", "--port", "0"),
            *("--metrics-host", "127.0.0.1", "--metrics-port", "0"),
        )
    )
    try:
        http = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", server.read_until("metrics on"))
        thrift = server.read_until("ready: ")
        assert http
        port = int(http[1])
        # The log is what server.toml wants.
        assert thrift.startswith("{")
        for _, probe in probes():
            assert ask(port, probe["path"])[0] == 200
        text = ask(port, "/metrics")[1]
        told = set(re.findall(r"(?m)^# TYPE (\w+)", text))
        for rule in rules().values():
            assert set(selected_series(promql_parser.parse(query(rule)))) <= told
        server.process.terminate()
        server.read_until("serving on for --drain-delay-s")
        statuses = {name: ask(port, probe["path"])[0] for name, probe in probes()}
        # No probe ends a pod that drains.
        assert statuses == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 503}
        found = re.search(r"127\.0\.0\.1:(\d+)", thrift)
        assert found
        with Client(port=int(found[1])) as client:
            client.ping()
    finally:
        server.close()
