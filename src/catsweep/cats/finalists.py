"""The best trials of a search, each trained on in a copy: what is compared before the export of `src/cats.py`.

A search compares trials that are short. How they would rank after a longer training is known only afterwards, so as
many of the best as there are slots are trained on side by side; with one slot it is the best alone.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from catsweep.errors import DataError
from catsweep.metrics.judge import JUDGED, Judged, read_judged, run_scores
from catsweep.runs import BEST_CHECKPOINT, CONFIG, LAST_CHECKPOINT, PROVENANCE, SCORES, RunDir
from steady import printing
from steady.safe_paths import refuse_links_within

LONGER = "longer"  # folder of the best one's copy; those of others end with their trial's number
OVERRIDES = Path(".hydra/overrides.yaml")
REPLACED = ("trial.", "minutes=")  # overrides of a trial that its copy has values of its own for


@dataclass(frozen=True)
class Finalist:
    """A trial, and the copy of its run that is trained on."""

    trial: int
    run: Path  # the trial's
    copy: Path  # need not be there yet
    score: str  # name of the first objective
    maximise: bool
    values: Mapping[str, float]  # all objectives of the trial

    @property
    def before(self) -> float:
        """The trial's score."""
        return self.values[self.score]

    @property
    def after(self) -> float | None:
        """Score of the copy; None if it has none, as before it is trained to its end."""
        return run_scores(self.copy).own.get(self.score)

    @property
    def judged(self) -> Judged | None:
        """What the judge says of the copy; None without a judge."""
        found = read_judged(self.copy)
        return found if found and JUDGED in found.scores else None

    @property
    def is_scored(self) -> bool:
        """Whether the copy was trained to its end."""
        return (self.copy / SCORES).exists()

    def loss(self, score: float) -> float:
        """Turn a score into what is better where it is lower."""
        return -score if self.maximise else score

    def words(self) -> str:
        """Format what training on has brought.

        >>> Finalist(3, Path("no"), Path("no"), "val/fid", False, {"val/fid": 40.0}).words()
        'val/fid 40 → no score'
        """
        after = "no score" if self.after is None else f"{self.after:.4g}"
        judged = [found.scores.get(JUDGED) for run in (self.run, self.copy) if (found := read_judged(run))]
        fids = [f"{fid:.4g}" for fid in judged if fid is not None]
        said = f", {JUDGED} {_change(fids)}" if self.judged else ""
        return f"{self.score} {_change([f'{self.before:.4g}', after])}{said}"


def _change(values: Sequence[str]) -> str:
    """Format from what to what; equal ones, as where the best checkpoint is still the trial's, as one."""
    return f"{values[0]} as before" if len(values) > 1 and len(set(values)) == 1 else " → ".join(values)


def read(winner: Path, count: int) -> list[Finalist]:
    """Read from the folder of a best model which trial won and which are next, `count` of them or fewer.

    The copies are beside it. A DataError if its `choice.json` is damaged.
    """
    choice = RunDir(winner).choice()
    try:
        if choice is None:
            raise KeyError("trial")
        names = [str(objective["name"]) for objective in choice["objectives"]]
        maximise = choice["objectives"][0]["direction"] == "maximize"
        found: list[Finalist] = []
        for one in (choice, *choice.get("runners_up", [])[: count - 1]):  # earlier versions named none
            number, values = int(one["trial"]), {name: float(one["values"][name]) for name in names}
            copy = winner.with_name(f"{LONGER}-{number}" if found else LONGER)
            found.append(Finalist(number, Path(one["run"]), copy, names[0], maximise, values))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{winner} does not say which trial is the best.") from error
    return found


def best(finalists: Sequence[Finalist]) -> tuple[Finalist | None, str]:
    """Choose the copy to export, and say by which score; None if training on has made none better.

    Better is a copy that has a better score than the winner of the search had, the first of them, and than its own
    trial had: one that lost the confirmation in spite of its score is not taken for that score. If the judge
    has seen all that are left, it chooses: what was searched by one network's features is compared by another's. Else
    the score does, of equals the first.
    """
    left = [
        (one.loss(one.after), one)
        for one in finalists
        if one.after is not None and one.loss(one.after) < min(one.loss(finalists[0].before), one.loss(one.before))
    ]
    judged = [one.judged for _, one in left]
    seen = [found for found in judged if found is not None]
    alike = all(found.cards[JUDGED].measure() == seen[0].cards[JUDGED].measure() for found in seen)
    if len(left) > 1 and len(seen) == len(left) and alike:
        left = [(found.scores[JUDGED], one) for found, (_, one) in zip(seen, left, strict=True)]
        return min(left, key=lambda pair: pair[0])[1], JUDGED
    return (min(left, key=lambda pair: pair[0])[1] if left else None), finalists[0].score


def verdict(
    finalists: Sequence[Finalist], chosen: Finalist | None, by: str, failed: Mapping[int, str], judged: bool = False
) -> str:
    """Say what training on has brought: what `best` has chosen and by which score.

    `failed` are the reasons of trials that could not be trained on; `judged` says whether the judge was to see all.
    """
    first = finalists[0]
    trained = [one for one in finalists if one.trial not in failed]
    if len(finalists) == 1:
        if failed:
            return f"It could not be trained on, and is taken as it was: {failed[first.trial]}"
        said = "it is better" if chosen else "it is no better, so it is taken as it was"
        return f"Trained on, {said}: {first.words()}."
    if not trained:
        said = f"none got anywhere, and trial {first.trial} is taken as it was"
    elif chosen is None:
        said = f"none got better and is better than trial {first.trial} was, which is taken as it was"
    else:
        now = "" if chosen is first else f", and no longer trial {first.trial}, the winner of the search"
        said = f"trial {chosen.trial} is the best by {by}{now}"
    told = "; ".join(f"trial {one.trial}: {one.words()}" for one in trained)
    lost = "".join(f" Trial {trial} could not be trained on: {why}" for trial, why in failed.items())
    by_score = judged and chosen is not None and by != JUDGED
    unseen = [one.trial for one in trained if by_score and one.judged is None]
    blind = f" The judge has not seen {printing.trials(unseen)}, so {first.score} chose." if unseen else ""
    return f"Trained on, {said}.{f' {told[0].upper()}{told[1:]}.' if told else ''}{blind}{lost}"


def copy_to_train(finalist: Finalist) -> list[str]:
    """Copy a finished trial to a folder where it is a single run that was not finished, unless that is there.

    Returns the overrides that it was configured with, without those that only a trial has. A DataError if the trial's
    folder lacks something, holds links, or is damaged.
    """
    trial, target = finalist.run, finalist.copy
    try:
        if not target.exists():
            refuse_links_within(trial, "trial", DataError)
            new = target.with_name(f"{target.name}.partial")
            shutil.rmtree(new, ignore_errors=True)  # of a start that was killed
            config: Any = OmegaConf.create(RunDir(trial).config())
            config.trial = None
            for part in (PROVENANCE, BEST_CHECKPOINT, LAST_CHECKPOINT, OVERRIDES):
                if not (trial / part).is_file():
                    raise DataError(f"{trial} lacks {part}.")
                (new / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(trial / part, new / part)
            OmegaConf.save(config, new / CONFIG)
            new.rename(target)
        # Copies of earlier versions have no overrides of their own.
        overrides = target / OVERRIDES if (target / OVERRIDES).exists() else trial / OVERRIDES
        words = [str(word) for word in OmegaConf.load(overrides)]
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise DataError(f"{trial} cannot be copied: {error}") from error
    own = [f"trial.{key}=null" for key in ("number", "study", "storage")]
    return [word for word in words if not word.startswith(REPLACED)] + own
