"""What is to be known of an engine where its results are read, which may be another process."""

from __future__ import annotations

from dataclasses import dataclass

from engine.interface import Engine


@dataclass(frozen=True)
class EngineFacts:
    """An engine in words.

    Attributes:
        engine: the provider's name.
        precision: what it runs.
        model: the model's name.
        model_sha256: of its file.
        num_classes: how many scores a row has.
        outputs_probabilities: whether they are probabilities, or logits.
        max_batch_size: rows of the largest batch.
        threads_per_context: CPU threads of one run.
        versions: package name to version.
    """

    engine: str
    precision: str
    model: str
    model_sha256: str
    num_classes: int
    outputs_probabilities: bool
    max_batch_size: int
    threads_per_context: int
    versions: dict[str, str]

    @classmethod
    def of(cls, engine: Engine) -> EngineFacts:
        """Those of an engine of this process."""
        return cls(
            engine=engine.name,
            precision=engine.options.precision,
            model=engine.model.name,
            model_sha256=engine.model.sha256,
            num_classes=engine.model.num_classes,
            outputs_probabilities=engine.model.outputs_probabilities,
            max_batch_size=engine.options.max_batch_size,
            threads_per_context=engine.options.threads_per_context,
            versions=engine.versions,
        )
