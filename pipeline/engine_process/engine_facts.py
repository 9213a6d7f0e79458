"""What is to be known of an engine where its results are read, which may be another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.interface import Engine
from engine.scoring import Scoring
from pipeline.backends.postprocessing import scoring_of_results


@dataclass(frozen=True)
class EngineFacts:
    """An engine in words.

    Attributes:
        engine: the provider's name.
        precision: what it runs.
        model: the model's name.
        model_sha256: of its file.
        note: what users of its answers have to know, or "".
        activation: what makes scores of a result: see `engine.scoring.Scoring`.
        num_classes: how many scores that gives.
        max_batch_size: rows of the largest batch.
        threads_per_context: CPU threads of one run.
        versions: package name to version.
        image: how the model's file takes an image, in words.
    """

    engine: str
    precision: str
    model: str
    model_sha256: str
    note: str
    activation: str
    num_classes: int
    max_batch_size: int
    threads_per_context: int
    versions: dict[str, str]
    image: str = ""

    @classmethod
    def of(cls, engine: Engine, settings: Mapping[str, Any]) -> EngineFacts:
        """Those of an engine of this process.

        Args:
            engine: the engine.
            settings: those of TensorrtTensor.

        Raises:
            EngineError: its results cannot be read as scores.
        """
        scoring = scoring_of_results(engine.model, settings)
        return cls(
            engine=engine.name,
            precision=engine.options.precision,
            model=engine.model.name,
            model_sha256=engine.model.sha256,
            note=engine.model.note,
            activation=scoring.activation,
            num_classes=scoring.num_classes,
            max_batch_size=engine.options.max_batch_size,
            threads_per_context=engine.options.threads_per_context,
            versions=engine.versions,
            image=str(engine.model.image_format or "as the configuration gives it"),
        )

    @property
    def scoring(self) -> Scoring:
        """How its results become scores."""
        return Scoring(self.activation, self.num_classes)
