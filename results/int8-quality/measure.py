"""Labels and scores that int8 keeps of fp32, for one engine and one limit of instructions.

Appends a row to a CSV file. See report.md for the commands.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
import skimage
import sklearn.datasets
import torch
from engine.onnx_model import OnnxModel

import engine.providers.onnxruntime as provider
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from engine.zoo import open_model

CALIBRATED = (
    *("chelsea.png", "coffee.png", "camera.png"),
    *("motorcycle_left.png", "china.jpg", "flower.jpg"),
)
OTHERS = (
    *("astronaut.png", "motorcycle_right.png", "rocket.jpg", "coins.png"),
    *("horse.png", "color.png", "hubble_deep_field.jpg", "moon.png"),
)
FOLDERS = (
    Path(skimage.__file__).parent / "data",
    Path(sklearn.datasets.__file__).parent / "images",
)


def read(name: str) -> np.ndarray:
    """The packaged photograph, in B, G, R order."""
    return cv2.imread(str(next(it / name for it in FOLDERS if (it / name).is_file())))


def views(names: tuple[str, ...], each: int, seed: int) -> torch.Tensor:
    """Random crops, mirror images, and other brightness: uint8 (N, 3, 224, 224)."""
    random = np.random.default_rng(seed)
    found = []
    for name in names:
        image = read(name)
        for _ in range(each):
            size = (np.array(image.shape[:2]) * random.uniform(0.5, 1)).astype(int)
            top, left = random.integers(0, np.array(image.shape[:2]) - size + 1)
            part = image[top : top + size[0], left : left + size[1], ::-1]
            if random.random() < 0.5:
                part = part[:, ::-1]
            lit = part * random.uniform(0.6, 1.4) + random.uniform(-20, 20)
            found.append(cv2.resize(np.clip(lit, 0, 255).astype(np.uint8), (224, 224)))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def scores(engine: str, precision: str, model: OnnxModel, batch: torch.Tensor) -> torch.Tensor:
    """The scores of each view, run alone."""
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(CALIBRATED):
            cv2.imwrite(str(Path(folder, f"{index}.jpg")), read(name))
        options = EngineOptions(calibration_dir=Path(folder))
        loaded = load_engine(choose_engine(engine, precision), model, options)
    context = loaded.create_context()
    return torch.cat([context.run([(row[None],)])[0].clone() for row in batch])


def main() -> None:
    """Measure and append."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--code", default="this", help="which code this is, for the table")
    options = parser.parse_args()
    hidden = os.environ.get("HIDDEN_CPU_FEATURES", "")
    if options.engine == "onnxruntime" and hasattr(provider, "largest_weight"):
        # /proc/cpuinfo hides nothing, so the engine is told what MLAS finds.
        provider.largest_weight = lambda: 64 if "vnni" in hidden else 127
    zoo = open_model(options.model)
    model = zoo.with_uint8_input(zoo.declared_normalization)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or (hidden and f"without {hidden}")
    for photographs, batch in (
        ("calibrated with", views(CALIBRATED, 60, 0)),
        ("others", views(OTHERS, 30, 5)),
    ):
        expected = scores("onnxruntime", "fp32", model, batch)
        found = scores(options.engine, "int8", model, batch)
        same = expected.argmax(1) == found.argmax(1)
        best = expected.topk(2).values
        sure = best[:, 0] - best[:, 1] > 0.1
        row = {
            "code": options.code,
            "model": options.model,
            "engine": options.engine,
            "limit": limit or "none",
            "photographs": photographs,
            "views": len(batch),
            "labels_kept": int(same.sum()),
            "views_with_lead_above_0.1": int(sure.sum()),
            "of_these_labels_kept": int(same[sure].sum()),
            "mean_score_difference": f"{float((expected - found).abs().mean()):.3e}",
            "largest_score_difference": f"{float((expected - found).abs().max()):.3f}",
        }
        out = Path(options.out)
        new = not out.exists()
        with out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
