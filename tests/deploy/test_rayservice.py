"""KubeRay's RayService, against KubeRay's and Kubernetes' schemas and the service's parser.

Of KubeRay's schema, which is a megabyte, the test has what it says of the fields that are used; the
templates of pods in it are Kubernetes' own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from interfaces.options import settings_from
from interfaces.service import PORT
from service.options.cluster_settings import ClusterSettings
from service.options.given import gather
from service.options.server_arguments import parse_arguments
from service.options.server_settings import ServerSettings
from service.options.validation import handler_settings, server_settings
from tests.deploy.manifests import CONTAINERFILE, FOLDER, LEAVING_S, ROOT, VERSIONS, documents

MANIFEST = FOLDER / "rayservice.yaml"
# What the operator sets.
RAY_START = "ray start --address=head:6379 --block --num-cpus=0"
# From helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml of ray-project/kuberay at commit
# 02a80a6f2abf, version v1: the types of the fields that are used, and all that must be there.
TYPES: dict[str, dict[str, type]] = {
    "spec": {"serveConfigV2": str, "rayClusterConfig": dict, "excludeHeadPodFromServeSvc": bool},
    "cluster": {
        "rayVersion": str,
        "headGroupSpec": dict,
        "workerGroupSpecs": list,
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": dict,
    },
    "autoscaler": {"idleTimeoutSeconds": int},
    "head": {"rayStartParams": dict, "template": dict},
    "worker": {
        "groupName": str,
        "rayStartParams": dict,
        "template": dict,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
    },
    "template": {"metadata": dict, "spec": dict},
    # Fewer than Kubernetes has.
    "metadata": {"annotations": dict, "labels": dict},
}
REQUIRED = {
    "cluster": {"headGroupSpec"},
    "head": {"template"},
    "worker": {"groupName", "maxReplicas", "minReplicas", "template"},
}
# Without them there is nothing to be placed, and Ray need not be that of the image.
WANTED = {"spec": {"serveConfigV2", "rayClusterConfig"}, "cluster": {"rayVersion"}}


def service() -> dict[str, Any]:
    return documents(MANIFEST)[0]


def cluster() -> dict[str, Any]:
    found: dict[str, Any] = service()["spec"]["rayClusterConfig"]
    return found


def groups() -> dict[str, dict[str, Any]]:
    """The head, and the groups of workers by their names."""
    workers = {group["groupName"]: group for group in cluster()["workerGroupSpecs"]}
    return {"head": cluster()["headGroupSpec"], **workers}


def container(group: str) -> dict[str, Any]:
    (only,) = groups()[group]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def parts(of: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part of a manifest that has fields of KubeRay's, by its kind."""
    ray = of["spec"]["rayClusterConfig"]
    workers = ray["workerGroupSpecs"]
    yield "spec", of["spec"]
    yield "cluster", ray
    yield "autoscaler", ray["autoscalerOptions"]
    yield "head", ray["headGroupSpec"]
    yield from (("worker", one) for one in workers)
    for group in (ray["headGroupSpec"], *workers):
        yield "template", group["template"]
        yield "metadata", group["template"]["metadata"]


def unfit(of: dict[str, Any]) -> list[str]:
    """What of a manifest KubeRay's schema does not have so."""
    found = []
    for kind, part in parts(of):
        types = TYPES[kind]
        needed = REQUIRED.get(kind, set()) | WANTED.get(kind, set())
        found += [f"{kind} has no {name}" for name in sorted(needed - set(part))]
        for name, value in part.items():
            # Not isinstance: a bool is an int there, and none here.
            if type(value) is not types.get(name):
                found.append(f"{kind}: {name} = {value!r}")
            # Of strings: those of rayStartParams become options of `ray start`.
            if name in ("rayStartParams", "annotations", "labels"):
                found += [f"{kind}: {name}: {it!r}" for it in value.values() if type(it) is not str]
    return found


def test_it_keeps_to_kuberays_schema() -> None:
    assert (service()["apiVersion"], service()["kind"]) == ("ray.io/v1", "RayService")
    assert unfit(service()) == []
    for group in cluster()["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_a_manifest_that_does_not_would_be_found() -> None:
    wrong = service()
    ray = wrong["spec"]["rayClusterConfig"]
    ray["rayVersion"] = 2.6
    ray["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    ray["workerGroupSpecs"][0]["maxReplica"] = ray["workerGroupSpecs"][0].pop("maxReplicas")
    assert unfit(wrong) == [
        "cluster: rayVersion = 2.6",
        "head: rayStartParams: 0",
        "worker has no maxReplicas",
        "worker: maxReplica = 10",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_rest_keeps_to_kubernetes_schemas(version: str) -> None:
    for name, group in groups().items():
        metadata = {**group["template"]["metadata"], "name": name}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        pod["spec"] = group["template"]["spec"]
        kubernetes_validate.validate(pod, version, strict=True)
    for one in documents(MANIFEST)[1:]:
        kubernetes_validate.validate(one, version, strict=True)


def test_ray_takes_what_the_operator_sends_it() -> None:
    config = yaml.safe_load(service()["spec"]["serveConfigV2"])
    # The front ends deploy the application, and tell Serve the same about its proxies.
    assert config == {"proxy_location": "Disabled", "applications": []}
    schema = pytest.importorskip("ray.serve.schema", reason="the extra cluster is not installed")
    assert schema.ServeDeploySchema(**config).applications == []


def test_ray_is_that_of_the_image() -> None:
    pinned = re.search(r"(?m)^ray==(\S+)", (ROOT / "constraints.txt").read_text())
    assert pinned
    assert cluster()["rayVersion"] == pinned[1]
    assert " AS cluster\n" in CONTAINERFILE.read_text()
    assert {container(name)["image"] for name in groups()} == {
        "registry.example.com/thriftpipe:cluster"
    }


@cache
def started(group: str) -> tuple[str, list[str]]:
    """What a group's command does: its `ray start`, and the words of the program after it."""
    only = container(group)
    # Stand-ins of both programs, which say what they are given.
    programs = 'ray() { echo ray "$@"; }; python() { printf "%s\\n" "$@"; }; exec() { "$@"; }; '
    done = subprocess.run(
        [*only["command"], programs + only["args"][0]],
        capture_output=True,
        text=True,
        env={"KUBERAY_GEN_RAY_START_CMD": RAY_START},
        check=True,
    )
    first, *words = done.stdout.splitlines()
    return first, words


def test_every_pod_starts_ray_and_only_a_front_end_goes_on() -> None:
    assert service()["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"
    for group in ("head", "replicas"):
        assert started(group) == (RAY_START, [])
    first, words = started("front")
    assert first == RAY_START.replace(" --block", "")
    assert words[:2] == ["-m", "service"]


@cache
def front() -> tuple[ServerSettings, ClusterSettings]:
    """The settings of a front end, read by its own parser."""
    options = parse_arguments(gather(started("front")[1][2:], {}).words)
    handler_settings(options)
    return server_settings(options), settings_from(ClusterSettings, options)


def test_the_front_end_has_the_replicas_for_which_there_are_pods() -> None:
    _, replicas = front()
    group = groups()["replicas"]
    assert replicas.cluster == "auto"
    assert (replicas.fewest, replicas.most) == (group["minReplicas"], group["maxReplicas"])
    cores = replicas.cpus_per_replica
    assert cores == float(group["rayStartParams"]["num-cpus"])
    assert cores == float(container("replicas")["resources"]["limits"]["cpu"])
    # Elsewhere none is placed.
    assert groups()["head"]["rayStartParams"]["num-cpus"] == "0"
    assert groups()["front"]["rayStartParams"]["num-cpus"] == "0"


def test_ports_probes_and_selectors_belong_together() -> None:
    settings, _ = front()
    only = container("front")
    ports = {port["name"]: port["containerPort"] for port in only["ports"]}
    assert ports == {"thrift": settings.port, "thrift-metrics": settings.metrics_port}
    (service_port,) = documents(MANIFEST)[1]["spec"]["ports"]
    assert (service_port["port"], ports[service_port["targetPort"]]) == (PORT, settings.port)
    labels = groups()["front"]["template"]["metadata"]["labels"]
    budget = documents(MANIFEST)[2]["spec"]["selector"]["matchLabels"]
    assert budget == documents(MANIFEST)[1]["spec"]["selector"] == labels
    assert groups()["replicas"]["template"]["metadata"]["labels"].items() < labels.items()
    paths = {name: only[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert paths == {"liveness": "/livez", "readiness": "/readyz"}
    annotations = groups()["front"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(settings.metrics_port)


def test_front_ends_drain_while_there_are_replicas() -> None:
    settings, _ = front()
    drain_s = settings.drain_delay_s + settings.drain_timeout_s
    grace_s = {
        name: group["template"]["spec"]["terminationGracePeriodSeconds"]
        for name, group in groups().items()
    }
    assert grace_s["front"] >= drain_s + LEAVING_S
    for name in ("head", "replicas"):
        program, waits_s = container(name)["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        assert drain_s <= int(waits_s) < grace_s[name]


def confined() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for name, group in groups().items():
        yield group["template"]["spec"], container(name)


def test_all_pods_are_confined() -> None:
    user = re.search(r"--uid (\d+)", CONTAINERFILE.read_text())
    assert user
    for pod, only in confined():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == int(user[1])
        assert pod["enableServiceLinks"] is False
        assert only["securityContext"]["readOnlyRootFilesystem"] is True
        assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["mountPath"] for mount in only["volumeMounts"]}
        assert {"/tmp", "/var/cache/thriftpipe"} <= mounted  # noqa: S108
        (home,) = (one["value"] for one in only["env"] if one["name"] == "HOME")
        assert home in mounted
