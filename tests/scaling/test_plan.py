"""The arithmetic: by hand, and on the results of this repository."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.command_line import main
from scaling.costs import CLUSTER_FILE, Costs, Measured, ServerCosts, fitted, read_costs
from scaling.errors import ScalingError
from scaling.plan import (
    BALANCERS,
    CHANGES,
    CLIENTS,
    CORES,
    FRONT_ENDS,
    GPU,
    LINK_IN,
    REPLICAS,
    Demand,
    make_plan,
    replica_limits,
)
from scaling.plan_tables import changes_table, costs_table, plan_table, summary
from scaling.study import scenarios
from tests.commands import run_here

RESULTS = Path(__file__).parents[2] / "results"


def _measured(value: float | None) -> Measured:
    return Measured(value, "here", "by hand")


def _server(rate: float, cpu_ms: float, cores: int, *, has_gpu: bool) -> ServerCosts:
    return ServerCosts(_measured(rate), _measured(cpu_ms), _measured(0.5), cores, has_gpu=has_gpu)


@pytest.fixture
def costs() -> Costs:
    """A GPU of 1,000 images/s, 2 ms of CPU an image on 16 cores, images of 100 KB."""
    gpu = _server(1000, 2.0, 16, has_gpu=True)
    return Costs(
        gpu=gpu,
        faster_gpu=gpu,
        h100=gpu,
        cpu_decode=replace(gpu, waits=True),
        cpu_hosts=(_server(50, 40, 2, has_gpu=False),),
        second_gpu=_measured(0.9),
        front_end_cpu_ms=_measured(0.1),
        hop_cpu_ms=_measured(None),
        hop_latency_ms=_measured(None),
        balancer_cpu_ms=_measured(None),
        image_bytes=_measured(100_000 * 1448 / 1538),
        batch_ms=_measured(1.0),
        batch_image_ms=_measured(0.1),
        largest_batch=32,
    )


@pytest.fixture(scope="module")
def real() -> Costs:
    return read_costs(RESULTS)


# 100 KB on the wire an image: 1 Gbit/s takes 1,250 a second.
DEMAND = Demand(images_per_s=10_000, use=0.5, spare=1, link_gbit_s=1.0, front_end_cores=4)


def test_counts_are_those_by_hand(costs: Costs) -> None:
    plan = make_plan(costs, costs.gpu, DEMAND)
    # 10,000 / (0.5 * 1,000) and one; the link takes 1,250 a host.
    assert (plan.count(REPLICAS), plan.gpus) == (21, 21)
    # A front end's 4 cores would serve 40,000, its link 1,250.
    assert plan.count(FRONT_ENDS) == plan.count(BALANCERS) == 16 + 1
    # 0.5 ms a client: 2,000 a second, at half of that; clients that fail are no concern.
    assert plan.count(CLIENTS) == 10
    assert plan.front_end_processes == 2
    assert plan.network_gbit_s == pytest.approx(8)
    assert plan.hosts == 21 + 17 + 17


def test_what_is_tightest_is_told(costs: Costs) -> None:
    assert make_plan(costs, costs.gpu, DEMAND).parts[0].tightest == GPU
    slow_cpu = replace(costs.gpu, cpu_ms=_measured(20.0))
    assert make_plan(costs, slow_cpu, DEMAND).parts[0].tightest == CORES
    thin = replace(DEMAND, link_gbit_s=0.5)
    assert make_plan(costs, costs.gpu, thin).parts[0].tightest == LINK_IN


def test_a_server_that_waited_counts_by_its_cpu(costs: Costs) -> None:
    limits = replica_limits(costs, costs.cpu_decode, DEMAND)
    assert GPU not in limits
    assert limits[CORES] == 8000


def test_a_host_without_a_gpu_counts_by_what_it_served(costs: Costs) -> None:
    plan = make_plan(costs, costs.cpu_hosts[0], DEMAND)
    assert plan.gpus == 0
    assert plan.count(REPLICAS) == 400 + 1


def test_two_gpus_of_a_host_are_worth_less_than_twice_one(costs: Costs) -> None:
    limits = replica_limits(costs, costs.gpu, replace(DEMAND, gpus_per_host=2))
    assert limits[GPU] == pytest.approx(1800)


def test_parts_can_be_left_out(costs: Costs) -> None:
    demand = replace(DEMAND, has_front_ends=False, has_balancers=False)
    plan = make_plan(costs, costs.gpu, demand)
    assert [part.name for part in plan.parts] == [REPLICAS, CLIENTS]
    assert plan.front_end_processes == 0


@pytest.mark.parametrize("rate", [1, 999, 100_000, 3e6])
@pytest.mark.parametrize("spare", [0, 1, 3])
def test_nothing_is_fuller_than_asked_while_the_spare_hosts_have_failed(
    real: Costs, rate: float, spare: int
) -> None:
    plan = make_plan(real, real.gpu, Demand(images_per_s=rate, spare=spare))
    for part in plan.parts:
        failed = 0 if part.name == CLIENTS else spare
        used = [part.use_of(resource, failed) for resource in part.limits]
        assert max(used) <= plan.demand.use + 1e-9
        # One less would not do.
        if part.needed > 1:
            assert max(used) * part.needed / (part.needed - 1) > plan.demand.use


def test_the_first_to_be_full_is_the_first_of_the_list(real: Costs) -> None:
    plan = make_plan(real, real.gpu, Demand())
    rates = [rate for rate, _, _ in plan.fills]
    assert rates == sorted(rates)
    full = make_plan(real, real.gpu, Demand(images_per_s=rates[0], use=1.0, spare=0))
    assert full.count(REPLICAS) == plan.count(REPLICAS)
    assert plan.fills[0][1:] == (REPLICAS, GPU)


def test_what_is_not_measured_is_told_and_not_invented(real: Costs) -> None:
    none = _measured(None)
    unknown = replace(real, hop_cpu_ms=none, hop_latency_ms=none, balancer_cpu_ms=none)
    assert str(costs_table(unknown)).count("not measured yet") == 3
    plan = make_plan(unknown, unknown.gpu, Demand())
    assert "CPU of the hop" in plan_table(plan)
    assert "CPU of HAProxy" in plan_table(plan)
    with pytest.raises(ScalingError, match="not measured yet: by hand"):
        _ = unknown.hop_cpu_ms.known


def _linked(folder: Path) -> Path:
    """The results, without the cluster's costs."""
    for path in RESULTS.iterdir():
        if path.name != "cluster":
            (folder / path.name).symlink_to(path)
    (folder / CLUSTER_FILE).parent.mkdir()
    return folder


def test_the_clusters_costs_count_as_soon_as_they_are_there(tmp_path: Path) -> None:
    results = _linked(tmp_path)
    alone = read_costs(results)
    (results / CLUSTER_FILE).write_text(
        json.dumps(
            {
                "command": "a command",
                "front_end_cpu_ms_per_image": 0.3,
                "replica_cpu_ms_per_image": 0.1,
                "hop_latency_ms": 0.4,
                "balancer_cpu_ms_per_image": 0.02,
            }
        )
    )
    found = read_costs(results)
    assert alone.hop_cpu_ms.value is None
    assert found.front_end_cpu_ms == Measured(0.3, CLUSTER_FILE, "a command")
    assert found.hop_cpu_ms.known == pytest.approx(0.3 - alone.front_end_cpu_ms.known + 0.1)
    assert found.gpu.cpu_ms.known == pytest.approx(alone.gpu.cpu_ms.known + 0.1)
    assert "not measured yet" not in costs_table(found)
    limits = make_plan(found, found.gpu, Demand()).parts[2].limits
    assert limits[CORES] == 16 * 1000 / 0.02
    assert {cluster.hops_ms for _, cluster, _ in scenarios(found)} == {(0.4,)}
    assert {cluster.hops_ms for _, cluster, _ in scenarios(alone)} == {()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must hold a JSON object"),
        ('{"front_end_cpu_ms": 1}', r"unknown keys \['front_end_cpu_ms'\]; known: front_end_cpu"),
        ('{"hop_latency_ms": -1}', "hop_latency_ms must be a number of at least 0, got -1"),
        ('{"hop_latency_ms": true}', "got True"),
        ('{"hop_latency_ms": NaN}', "got nan"),
    ],
)
def test_damaged_costs_of_the_cluster_are_told(text: str, message: str, tmp_path: Path) -> None:
    results = _linked(tmp_path)
    (results / CLUSTER_FILE).write_text(text)
    with pytest.raises(ScalingError, match=message):
        read_costs(results)


def test_missing_results_are_told(tmp_path: Path) -> None:
    with pytest.raises(ScalingError, match="lacks a measurement that is needed"):
        read_costs(tmp_path)


def test_twice_the_images_need_about_twice_the_hosts(real: Costs) -> None:
    table = changes_table(real, Demand())
    by_change = {row[0]: [int(cell) for cell in row[1:5]] for row in table.rows}
    assert [*by_change] == [name for name, _ in CHANGES]
    once, twice = by_change["nothing"], by_change["images/s"]
    assert all(1.5 * a < b <= 2 * a for a, b in zip(once, twice, strict=True))
    assert by_change["images/s of a GPU"][0] < once[0]
    # A front end may be full of calls before its link is; a balancer's link is full first.
    assert by_change["link"][2] < once[2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use": 0.0}, "use must be above 0"),
        ({"use": 1.5}, "use must be above 0 and at most 1"),
        ({"images_per_s": 0.0}, "images_per_s must be above 0"),
        ({"link_gbit_s": -1.0}, "link_gbit_s must be above 0"),
        ({"gpus_per_host": 8}, "more GPUs of one host were not measured"),
    ],
)
def test_impossible_demands_are_told(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ScalingError, match=message):
        Demand(**changed)  # type: ignore[arg-type]


def test_a_line_goes_through_its_points() -> None:
    assert fitted([(1, 3), (2, 5), (4, 9)]) == pytest.approx((1, 2))


def test_the_command_prints_the_plan(real: Costs) -> None:
    words = ("--images-per-s", "5000", "--use", "0.5", "--results", str(RESULTS))
    done = _run("plan", *words)
    demand = Demand(images_per_s=5000, use=0.5)
    plan = make_plan(real, real.gpu, demand)
    assert done[0] == 0
    assert summary(plan) in done[1]
    assert str(plan_table(plan)) in done[1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("plan", "--use", "0"), 2, "must be above 0 and at most 1"),
        (("plan", "--gpus-per-host", "8"), 2, "must be 1 to 2, got 8; more were not measured"),
        (("plan", "--image_per_s", "8"), 2, "did you mean '--images-per-s'"),
        (("plans",), 2, "did you mean 'plan'"),
        (("plan", "--results", "/nowhere"), 1, "lacks a measurement"),
        (("report", "--output-dir", "/nowhere"), 1, "python -m scaling measure"),
    ],
)
def test_mistakes_are_told_in_one_line(words: tuple[str, ...], code: int, message: str) -> None:
    done = _run(*words)
    assert done[0] == code
    assert message in done[2]
    assert done[2].count("\n") == 1


def _run(*words: str) -> tuple[int, str, str]:
    done = run_here(main, *words)
    return done.returncode, done.stdout, done.stderr
