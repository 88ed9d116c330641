"""What a folder says of its scores, and the photos and the scorer they were taken with, from its own files.

The folder is that of a run, or an exported bundle: both hold `config.yaml`, `metrics.json` and `provenance.json`.
`catsweep.evaluation` scores again with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catsweep.data.datamodule import CatDataModule
from catsweep.data.ready import CARD, ReadySet, find_ready_set
from catsweep.errors import CatsweepError, DataError, ExportError
from catsweep.export.intervals import Interval
from catsweep.loaded import read, rebuild
from catsweep.metrics.scorer import Scorer
from catsweep.metrics.scores import MetricCard, require_comparable
from catsweep.records import read_json

CONFIG, METRICS, PROVENANCE = "config.yaml", "metrics.json", "provenance.json"
READY = Path("data/ready")  # where ready sets are, see conf/data


@dataclass(frozen=True)
class Recorded:
    """The scores of a folder, as its files tell them.

    Attributes:
        folder: a run's or a bundle's.
        scores: by name.
        cards: how each was measured.
        intervals: where each may land; none in the folder of a run.
        data_digest: of the ready set; empty if the folder does not tell.
    """

    folder: Path
    scores: Mapping[str, float]
    cards: Mapping[str, MetricCard]
    intervals: Mapping[str, Interval]
    data_digest: str

    @classmethod
    def read(cls, folder: Path) -> "Recorded":
        """Read the files.

        Raises:
            ExportError: they are not those of a finished run or a bundle.
        """
        try:
            metrics, provenance = read_json(folder / METRICS), read_json(folder / PROVENANCE)
            scores = {str(name): float(score) for name, score in metrics["scores"].items()}
            cards = {name: MetricCard.from_dict(metrics["cards"][name]) for name in scores}
            intervals = {name: Interval.from_dict(one) for name, one in metrics.get("intervals", {}).items()}
            digest = provenance.get("data_digest") or ""
        except DataError as error:
            raise ExportError(
                f"{error} Name another folder, a finished run or a bundle, or export it again."
            ) from error
        except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, CatsweepError) as error:
            raise ExportError(
                f"Expected a finished run or a bundle in {folder}, with its scores, their cards and where they came "
                f"from ({METRICS}, {PROVENANCE}): {type(error).__name__}: {error}. Name another, or export it again."
            ) from error
        if not scores:
            raise ExportError(f"{folder / METRICS} holds no score. Name another folder, or export it again.")
        return cls(folder, scores, cards, intervals, str(digest))

    @property
    def seed(self) -> int:
        """Of the latents."""
        return next(iter(self.cards.values())).seed


def open_photos(recorded: Recorded, ready: str | None = None) -> ReadySet:
    """The ready set that a folder was scored against, its pixels compared with its digest.

    It is found by that digest, since where the folder's configuration says that photos are is a stranger's word, and
    they may be others' photos. Cats that catsweep draws by itself are drawn again if they are not there.

    Args:
        recorded: says which.
        ready: the set, or a folder of sets; None for `data/ready`.

    Raises:
        DataError: it is not there, damaged, or another one.
        ExportError: there is no such configuration, or one that a bundle may not have.
    """
    remedy = "Name the ready set it was trained on: ready=data/ready/NAME-SIZE."
    place = READY if ready is None else Path(ready)
    found = None if (place / CARD).exists() else find_ready_set(recorded.data_digest, [place])
    if found is None:
        found = _drawn_again(recorded, remedy) if ready is None else ReadySet.open(place, remedy)
    if recorded.data_digest and found.digest != recorded.data_digest:
        raise DataError(
            f"{recorded.folder} was scored against other photos than those in {found.path}: expected digest "
            f"{recorded.data_digest[:12]}…, got {found.digest[:12]}…. {remedy}"
        )
    found.verify()
    return found


def _drawn_again(recorded: Recorded, remedy: str) -> ReadySet:
    """Demo cats, or what the command line trusts the reader of.

    Raises:
        DataError: it was scored against something else.
    """
    try:
        data: CatDataModule = rebuild(_config(recorded.folder), "data")
        data.prepare_data()
    except CatsweepError as error:
        raise DataError(
            f"The photos of {recorded.folder}, digest {recorded.data_digest[:12]}…, are not in {READY}. {remedy} They "
            f"cannot be made again from its {CONFIG}: {error}"
        ) from error
    return data.ready


def scorer_for(recorded: Recorded, ready: ReadySet, seed: int | None = None) -> Scorer:
    """The scorer of a folder's configuration.

    Args:
        recorded: of the folder.
        ready: the photos.
        seed: of the latents; None for the recorded one.

    Raises:
        MetricError: it would measure otherwise than the recorded scores were measured; libraries and the given seed
            may differ.
    """
    scorer: Scorer = rebuild(_config(recorded.folder), "metrics")(ready=ready)
    if seed is not None and seed != scorer.seed:
        scorer = scorer.reseeded(seed)
    ignore = {"versions"} | ({"seed"} if seed is not None else set())
    for name, card in recorded.cards.items():
        require_comparable(card, scorer.card(name), ignore)
    return scorer


def other_versions(recorded: Recorded, cards: Mapping[str, MetricCard]) -> list[str]:
    """Libraries that are not those of the recorded scores: `torch 2.13.0, now 2.14.0`."""
    found: dict[str, Any] = {}
    for name, card in cards.items():
        before = recorded.cards[name].versions if name in recorded.cards else card.versions
        for library in sorted({*before, *card.versions}):
            was, now = (versions.get(library, "none") for versions in (before, card.versions))
            if was != now:
                found[library] = f"{library} {was}, now {now}"
    return list(found.values())


def _config(folder: Path) -> dict[str, Any]:
    """The configuration, of its data only what decides the images: they are not trained on here."""
    config = read(folder / CONFIG)
    data = config.get("data")
    return config | ({"data": {k: v for k, v in data.items() if k != "augment"}} if isinstance(data, dict) else {})
