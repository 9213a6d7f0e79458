"""One workload of a comparison: its servers, what they said, and what was measured of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from loadtest.load.rpc import ServerIdentity
from loadtest.measure.agreement import Agreement, Answer, ask, check_same_model, compare_answers
from loadtest.measure.comparison_settings import ComparisonSettings
from loadtest.records.run import VariantRun, WorkloadRun
from loadtest.servers.servers import Servers, Serving
from loadtest.servers.variants import Variant, Workload


@dataclass
class Job:
    """A workload, its servers, what they said so far, and what was measured."""

    workload: Workload
    settings: ComparisonSettings
    servers: Servers
    identities: dict[str, ServerIdentity] = field(default_factory=dict)
    answers: dict[str, Mapping[str, Answer]] = field(default_factory=dict)
    agreement: Agreement | None = None
    result: WorkloadRun | None = None

    @property
    def measured(self) -> WorkloadRun:
        """The result, once a server was checked."""
        assert self.result is not None  # noqa: S101 (variants are checked before they are measured)
        return self.result

    @property
    def expected_labels(self) -> Mapping[str, str]:
        """Image name to the label that it must get under load."""
        assert self.agreement is not None  # noqa: S101 (as above)
        return self.agreement.expected_labels

    def check(self, variant: Variant, serving: Serving) -> bool:
        """Check that a variant runs the model of those before it and gives their answers.

        Returns:
            Whether it was asked: False where it was before, and its model alone is looked at.

        Raises:
            LoadTestError: it does not.
        """
        name, settings = variant.name, self.settings
        if name in self.identities:
            expected = self.identities[name]
            check_same_model({name: expected, f"{name} started again": serving.identity})
            return False
        identities = {**self.identities, name: serving.identity}
        check_same_model(identities)
        answers = {**self.answers, name: ask(settings.images, serving.port)}
        first = settings.served[0].decodes_on_gpu
        self.agreement = compare_answers(
            answers,
            settings.score_tolerance,
            {other.name for other in settings.served if other.decodes_on_gpu != first},
            settings.decoder_tolerance,
        )
        self.identities, self.answers = identities, answers
        return True

    def rename(self, old: str, new: str) -> None:
        """The variant, which was checked, has another name from now on."""
        self.servers.rename(old, new)
        self.identities = {new if k == old else k: v for k, v in self.identities.items()}
        self.answers = {new if k == old else k: v for k, v in self.answers.items()}

    def add(self, variant: Variant) -> None:
        """Record a variant that is about to be measured, and the agreement of all so far."""
        identity = next(iter(self.identities.values()))
        result = self.result or WorkloadRun.of_server(self.workload.name, identity.as_record())
        if variant.name not in {known.name for known in result.variants}:
            result.variants.append(_recorded(variant, self.identities.get(variant.name)))
        if self.agreement is not None:
            result = replace(result, agreement=self.agreement.as_record())
        self.result = result


def _recorded(variant: Variant, identity: ServerIdentity | None) -> VariantRun:
    """What result files say of a variant and of the server that ran it."""
    record = None if identity is None else identity.as_record()
    return VariantRun(variant.name, variant.description, record)
