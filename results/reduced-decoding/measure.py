"""Pixels, scores and labels with and without `--reduced-decoding`, on the load test's photographs.

Run from the checkout's folder: `python results/reduced-decoding/measure.py > scores.csv`.
"""

import csv
import sys
import timeit
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from baseline_trt.handler import create_handler
from baseline_trt.preprocessing import Preprocessor
from engine.normalization import IMAGENET_NORMALIZATION
from engine.resizing import Resizing
from loadtest.load.images import default_images
from service.handlers.handler_settings import HandlerSettings
from service.labels import Labels

SIZE = (224, 224)
PREPROCESSORS = [
    Preprocessor(Resizing(*SIZE), IMAGENET_NORMALIZATION, reduced=reduced)
    for reduced in (False, True)
]
SCALE = 255 * np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)

writer = csv.writer(sys.stdout, lineterminator="\n")
writer.writerow(
    [
        "model",
        "image",
        "label",
        "reduced_label",
        "score",
        "reduced_score",
        "largest_score_difference",
        "mean_pixel_difference",
        "decode_ms",
        "reduced_decode_ms",
    ]
)
names = Labels.load(None, 1000).names
for model in ("efficientnet_lite0", "resnet50"):
    handlers = [
        create_handler(HandlerSettings(model=model, precision="fp32", reduced_decoding=reduced))
        for reduced in (False, True)
    ]
    for image in default_images():
        data = image.path.read_bytes()
        pixels = [p.transform(p.decode(data)).numpy() * SCALE for p in PREPROCESSORS]
        decode_ms = [
            min(timeit.repeat(partial(p.decode, data), number=1, repeat=20)) * 1000
            for p in PREPROCESSORS
        ]
        scores = [handler.classify([data], None)[0].probabilities for handler in handlers]
        best = int(scores[0].argmax())
        writer.writerow(
            [
                model,
                image.path.name,
                *(names[int(row.argmax())] for row in scores),
                *(f"{row[best]:.4f}" for row in scores),
                f"{np.abs(scores[1] - scores[0]).max():.4f}",
                f"{np.abs(pixels[1] - pixels[0]).mean():.2f}",
                *(f"{ms:.2f}" for ms in decode_ms),
            ]
        )
