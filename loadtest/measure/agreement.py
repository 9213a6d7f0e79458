"""Before anything is timed: do all variants run the same model and give the same answers?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from idl import inference
from loadtest.errors import LoadTestError
from loadtest.load.images import LoadImage
from loadtest.load.rpc import ServerIdentity, connection
from loadtest.servers.variants import HOST
from loadtest.settings import DECODER_TOLERANCE


@dataclass(frozen=True)
class Answer:
    """What a server says of one image sent alone.

    Attributes:
        label: the best class.
        score: its probability.
        margin: how far the second class is behind.
    """

    label: str
    score: float
    margin: float


@dataclass(frozen=True)
class Agreement:
    """The variants agree on every image.

    Attributes:
        images: how many were compared.
        tipped_labels: how many of them got another label by another decoder, whose pixels differ
            a little, because their two best classes lie within the tolerance.
        distinct_labels: how many different labels they got; with one alone, a server that mixed
            up its answers would go unnoticed.
        score_tolerance: largest difference of scores that was allowed.
        largest_score_difference: largest difference that was seen.
        expected_labels: image name to the label that it must get under load too. An image whose
            two best classes lie within the tolerance is left out: there rounding may decide.
    """

    images: int
    tipped_labels: int
    distinct_labels: int
    score_tolerance: float
    largest_score_difference: float
    expected_labels: dict[str, str]

    def as_record(self) -> dict[str, Any]:
        """What run.json keeps."""
        return {**asdict(self), "labels_checked_under_load": len(self.expected_labels)}


def check_same_model(identities: Mapping[str, ServerIdentity]) -> None:
    """Refuse variants that would not run the same model in the same way.

    Raises:
        LoadTestError: two differ in engine, precision or model.
    """
    (first_name, first), *others = identities.items()
    for name, identity in others:
        for what in ("engine", "precision", "model_sha256"):
            one, other = getattr(first, what), getattr(identity, what)
            if one != other:
                raise LoadTestError(
                    f"nothing was timed: {first_name} runs {what} {one!r}, "
                    f"{name} runs {other!r}; compare like with like"
                )


def ask(images: Sequence[LoadImage], port: int) -> dict[str, Answer]:
    """Send every image alone, one after the other.

    Raises:
        LoadTestError: the server has no answer to an image, or the two calls of the interface
            answer differently.
    """
    answers = {}
    with connection(HOST, port) as client:
        for image in images:
            request = inference.InferenceParams(uuid=image.name, data=image.path.read_bytes())
            options = inference.InferOptions(top_k=2)
            result = client.infer_images([request], options)[0]
            if result.error is not None:
                raise LoadTestError(f"{image.name}: the server says: {result.error.message}")
            single = client.infer_batch(request)
            if single.label != result.label:
                raise LoadTestError(
                    f"{image.name}: infer_batch says {single.label!r}, "
                    f"infer_images says {result.label!r}"
                )
            best = [entry.score for entry in result.top_k or ()]
            margin = best[0] - best[1] if len(best) > 1 else 1.0
            answers[image.name] = Answer(result.label, result.score, margin)
    return answers


def compare_answers(
    answers: Mapping[str, Mapping[str, Answer]],
    score_tolerance: float,
    other_decoder: Collection[str] = (),
    decoder_tolerance: float = DECODER_TOLERANCE,
) -> Agreement:
    """Compare what the variants said with what the first of them said.

    Args:
        answers: variant name to image name to answer.
        score_tolerance: largest difference of two scores for the same image.
        other_decoder: variants that decode with another library than the first.
        decoder_tolerance: the same for those, if it is larger; among two classes that lie within
            it they may choose the other.

    Raises:
        LoadTestError: two variants differ; the message names the image, labels and scores.
    """
    (first_name, first), *others = answers.items()
    largest, widest, tipped = 0.0, score_tolerance, set()
    for name, theirs in others:
        tolerance = score_tolerance
        if name in other_decoder:
            tolerance = max(score_tolerance, decoder_tolerance)
        widest = max(widest, tolerance)
        for image, answer in first.items():
            other = theirs[image]
            difference = abs(answer.score - other.score)
            largest = max(largest, difference)
            is_tipped = (
                answer.label != other.label
                and name in other_decoder
                and max(answer.margin, other.margin) <= tolerance
            )
            if is_tipped:
                tipped.add(image)
            if difference > tolerance or (answer.label != other.label and not is_tipped):
                raise LoadTestError(
                    f"nothing was timed: {image}: {first_name} says {answer.label!r} "
                    f"{answer.score:.4f}, {name} says {other.label!r} {other.score:.4f} "
                    f"(scores may differ by {tolerance:g}, see --score_tolerance)"
                )
    expected = {image: answer.label for image, answer in first.items() if answer.margin > widest}
    distinct_labels = len({answer.label for answer in first.values()})
    return Agreement(len(first), len(tipped), distinct_labels, widest, largest, expected)
