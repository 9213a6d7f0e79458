"""What holds for every provider, on both models of the zoo."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import EngineError
from engine.interface import Engine
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from engine.zoo.efficientnet_lite import efficientnet_lite0, packaged_weights
from engine.zoo.resnet import SEED, seeded_resnet50
from tests.engines import CPU_ENGINES, FLOAT_RUNS

# Largest difference of a probability.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05}
ZOO_NAMES = ["resnet50", "efficientnet_lite0"]
WITHOUT_NETWORK = """
import sys
from pathlib import Path

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from engine.options import EngineOptions
from engine.onnx_graph.model import OnnxModel
from engine.registry import choose_engine, load_engine

path, *names = sys.argv[1:]
model = OnnxModel.load(path)
for name in names:
    engine = load_engine(choose_engine(name), model, EngineOptions())
    engine.create_context().run([(model.inputs[0].allocate(1),)])
"""


@pytest.fixture(scope="session")
def networks() -> dict[str, nn.Module]:
    """The torch networks that the zoo's models were exported from."""
    lite = efficientnet_lite0()
    lite.load_state_dict(torch.load(packaged_weights(), weights_only=True))
    return {"resnet50": seeded_resnet50(SEED), "efficientnet_lite0": lite.eval()}


@pytest.fixture(scope="session")
def models(resnet50: OnnxModel, efficientnet_lite0: OnnxModel) -> dict[str, OnnxModel]:
    return {"resnet50": resnet50, "efficientnet_lite0": efficientnet_lite0}


def normalized(model: OnnxModel, pixels: torch.Tensor) -> torch.Tensor:
    assert model.declared_normalization is not None
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in model.declared_normalization.per_channel())
    return (pixels.float() - mean) / std


@pytest.fixture(scope="session")
def eager(
    networks: dict[str, nn.Module], models: dict[str, OnnxModel], photo_batch: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The photographs' probabilities, as torch itself computes them."""
    with torch.inference_mode():
        return {
            name: network(normalized(models[name], photo_batch)).softmax(dim=1)
            for name, network in networks.items()
        }


def load(name: str, precision: str, model: OnnxModel, **options: Any) -> Engine:
    return load_engine(choose_engine(name, precision), model, EngineOptions(**options))


@pytest.mark.parametrize(("name", "precision"), FLOAT_RUNS)
@pytest.mark.parametrize("zoo_name", ZOO_NAMES)
def test_photographs_get_the_scores_of_torch_itself(
    name: str,
    precision: str,
    zoo_name: str,
    models: dict[str, OnnxModel],
    eager: dict[str, torch.Tensor],
    photo_batch: torch.Tensor,
) -> None:
    """The float model, and the one with fused normalization, in batches and alone."""
    model, expected = models[zoo_name], eager[zoo_name]
    assert model.declared_normalization is not None
    fused = model.with_uint8_input(model.declared_normalization)
    runs = [
        (model, normalized(model, photo_batch[:2])),
        (fused, photo_batch),
        (fused, photo_batch[:1]),
    ]
    contexts = {
        version: load(name, precision, version, max_batch_size=len(photo_batch)).create_context()
        for version in (model, fused)
    }
    for version, images in runs:
        (scores,) = contexts[version].run([(images,)])
        wanted = expected[: len(images)]
        assert (scores.dtype, scores.shape) == (torch.float32, wanted.shape)
        assert (scores - wanted).abs().max() < TOLERANCE[precision]
        assert torch.equal(scores.argmax(dim=1), wanted.argmax(dim=1))


@pytest.mark.parametrize("zoo_name", ZOO_NAMES)
def test_the_photographs_tell_handlers_apart_that_mix_up_images(
    zoo_name: str, eager: dict[str, torch.Tensor]
) -> None:
    """Every photograph has a label of its own, and a score of its own: a swap would be seen."""
    scores = eager[zoo_name]
    assert len(set(scores.argmax(dim=1).tolist())) == len(scores)
    best = scores.max(dim=1).values.sort().values
    assert (best.diff() > 1e-3).all()
    assert best[0] > 0.05


@pytest.mark.parametrize(
    ("photo", "label"),
    [
        ("chelsea", "Egyptian cat"),
        ("coffee", "espresso"),
        ("camera", "tripod"),
        ("motorcycle_left", "moped"),
        ("china", "bell cote"),
        ("flower", "daisy"),
    ],
)
@pytest.mark.parametrize(("name", "precision"), FLOAT_RUNS)
def test_efficientnet_lite0_knows_real_photographs(
    name: str,
    precision: str,
    photo: str,
    label: str,
    efficientnet_lite0: OnnxModel,
    photos: dict[str, torch.Tensor],
    labels: list[str],
    fused_engines: dict[tuple[str, str], Engine],
) -> None:
    context = fused_engines[name, precision].create_context()
    scores = context.run([(photos[photo],)])[0]
    assert label in labels[int(scores.argmax())]
    assert efficientnet_lite0.outputs_probabilities
    assert float(scores.sum()) == pytest.approx(1, abs=1e-3)


@pytest.fixture(scope="session")
def fused_engines(efficientnet_lite0: OnnxModel) -> dict[tuple[str, str], Engine]:
    """EfficientNet-Lite0 for uint8 pixels in every provider, two contexts of one thread."""
    assert efficientnet_lite0.declared_normalization is not None
    model = efficientnet_lite0.with_uint8_input(efficientnet_lite0.declared_normalization)
    return {
        run: load(*run, model, max_batch_size=4, num_contexts=2, threads_per_context=1)
        for run in FLOAT_RUNS
    }


@pytest.fixture(params=FLOAT_RUNS, ids="-".join)
def engine(request: pytest.FixtureRequest, fused_engines: dict[tuple[str, str], Engine]) -> Engine:
    return fused_engines[request.param]


def test_a_batch_gathers_the_rows_of_its_items_in_order(
    engine: Engine, photo_batch: torch.Tensor
) -> None:
    context = engine.create_context()
    expected = context.run([(photo_batch[:4],)])[0].clone()
    items = [(photo_batch[:1],), (photo_batch[1:3],), (photo_batch[3:4],)]
    assert torch.equal(context.run(items)[0], expected)


def test_batches_of_any_size_up_to_the_largest(engine: Engine, photo_batch: torch.Tensor) -> None:
    """Sizes may change from run to run, and leftovers of a larger batch never show."""
    context = engine.create_context()
    largest = context.run([(photo_batch[:4],)])[0].clone()
    for rows in (1, 4, 2, 3, 1):
        scores = context.run([(photo_batch[:rows],)])[0]
        assert scores.shape == (rows, 1000)
        tolerance = 1e-5 if engine.options.precision == "fp32" else 0.03
        assert (scores - largest[:rows]).abs().max() < tolerance


def test_too_many_rows_are_refused(engine: Engine, photo_batch: torch.Tensor) -> None:
    context = engine.create_context()
    with pytest.raises(EngineError, match="at most 4 rows, got 5"):
        context.run([(photo_batch[:3],), (photo_batch[:2],)])


def test_no_rows_are_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match="at least one row, got none"):
        engine.create_context().run([])


@pytest.mark.parametrize("shape", [(1, 3, 224, 223), (1, 1, 224, 224), (3, 224, 224), ()])
def test_another_shape_is_refused(engine: Engine, shape: tuple[int, ...]) -> None:
    context = engine.create_context()
    with pytest.raises(EngineError, match="takes Nx3x224x224, got") as caught:
        context.run([(torch.zeros(shape, dtype=torch.uint8),)])
    assert ("x".join(map(str, shape)) or "a scalar") in str(caught.value)


def test_a_refused_batch_leaves_the_context_usable(
    engine: Engine, photo_batch: torch.Tensor
) -> None:
    context = engine.create_context()
    expected = context.run([(photo_batch[:1],)])[0].clone()
    with pytest.raises(EngineError):
        context.run([(photo_batch,)])
    assert torch.equal(context.run([(photo_batch[:1],)])[0], expected)


def test_contexts_in_their_own_threads_give_what_one_gives(
    engine: Engine, photo_batch: torch.Tensor
) -> None:
    """Contexts that run at the same time share the engine and nothing else."""
    photos = [photo_batch[row : row + 1] for row in range(len(photo_batch))]
    context = engine.create_context()
    expected = [context.run([(photo,)])[0].clone() for photo in photos]
    contexts = 3
    start = threading.Barrier(contexts)

    def run_all(first: int) -> None:
        own = engine.create_context()
        start.wait()
        for step in range(2 * len(photos)):
            index = (first + step) % len(photos)
            assert torch.equal(own.run([(photos[index],)])[0], expected[index])

    with ThreadPoolExecutor(contexts) as threads:
        for outcome in [threads.submit(run_all, first) for first in range(contexts)]:
            outcome.result()


def test_engines_say_which_versions_run(engine: Engine) -> None:
    assert engine.versions
    assert all(version[0].isdigit() for version in engine.versions.values())


def test_a_precision_that_a_provider_lacks_is_refused(small_model: OnnxModel) -> None:
    from engine.providers.onnxruntime import OnnxRuntimeEngine

    with pytest.raises(EngineError, match="'onnxruntime' runs fp32 or int8, got precision 'bf16'"):
        OnnxRuntimeEngine(small_model, EngineOptions(precision="bf16"))


def test_engines_report_to_no_one(small_file: Path, tmp_path: Path) -> None:
    """Not onnxruntime, not openvino: no connection, and no device id left in the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "PYTHONPATH")}
    subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, str(small_file), *CPU_ENGINES],
        # Where starting takes long, as on a busy machine, what a model did is kept there.
        env={**kept, "HOME": str(home), "THRIFTPIPE_CACHE_DIR": str(tmp_path / "own")},
        check=True,
    )
    assert list(home.rglob("*")) == []
