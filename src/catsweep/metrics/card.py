"""The metric card: what a score was measured with. It travels with every score, into metrics.json, W&B and reports.

`fid` alone is no number: it is one with an extractor, a resize, a reference and a number of samples. Two scores
are compared only if their cards agree.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from catsweep.errors import MetricError


@dataclass(frozen=True)
class MetricCard:
    """How one score was measured.

    Attributes:
        metric: the score's key, for example `fid`.
        extractor: name of the feature extractor; `pixels` for scores that need none.
        weights_sha256: digest of the extractor's weights; empty for `pixels`.
        resize: the resize before the extractor, in words; `none` for `pixels`.
        dtype: precision of the features, and of what is accumulated over them.
        reference_digest: digest of the real images compared with: the ready set's pixels and which rows of it.
        reference_size: number of those images.
        samples: number of generated (or reconstructed) images.
        seed: seed of their latents, and of every other draw in the score.
        settings: the metric's own parameters, plain values.
        versions: versions of the libraries that computed it.
    """

    metric: str
    extractor: str
    weights_sha256: str
    resize: str
    dtype: str
    reference_digest: str
    reference_size: int
    samples: int
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The card as plain values, ready for JSON or YAML."""
        return asdict(self)

    def measure(self) -> dict[str, Any]:
        """All but the versions: what two scores have in common that newer libraries do not make others."""
        return self.to_dict() | {"versions": None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MetricCard":
        """Build the card back from `to_dict`.

        Raises:
            MetricError: a field is missing, or one is not a card's.
        """
        known = [entry.name for entry in fields(cls)]
        wrong = sorted(set(known) ^ set(values))
        if wrong:
            raise MetricError(f"A metric card has the fields {known}; missing or unknown here: {wrong}. Score again.")
        return cls(**values)


def require_comparable(first: MetricCard, second: MetricCard, ignore: Collection[str] = ()) -> None:
    """Refuse to compare two scores that were not measured the same way.

    Args:
        first: card of one score.
        second: card of the other.
        ignore: fields that may differ, by name; an explicit decision of the caller.

    Raises:
        MetricError: the cards differ; the message lists each field with both values.
    """
    differences = [
        f"  {entry.name}: {getattr(first, entry.name)!r} against {getattr(second, entry.name)!r}"
        for entry in fields(MetricCard)
        if entry.name not in ignore and getattr(first, entry.name) != getattr(second, entry.name)
    ]
    if differences:
        raise MetricError(
            "Two scores can be compared only if they were measured the same way; these were not:\n"
            + "\n".join(differences)
            + "\nScore both again under one configuration (python src/evaluate.py)."
        )
