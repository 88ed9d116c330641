"""The best trials of a search, each trained on in a copy: what is compared before the export of `src/cats.py`.

A search compares trials that are short. How they would rank after a longer training is known only afterwards, so as
many of the best as there are slots are trained on side by side; with one slot it is the best alone.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from catsweep.errors import DataError
from catsweep.metrics.judge import JUDGED, read_judged, run_scores
from catsweep.runs import BEST_CHECKPOINT, CONFIG, LAST_CHECKPOINT, PROVENANCE, SCORES, RunDir
from steady.safe_paths import refuse_links_within

LONGER = "longer"  # folder of the best one's copy; those of others end with their trial's number
OTHERS = ("trial.", "minutes=", "metrics/judge=")  # overrides of a trial that its copy has values of its own for


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
    def is_scored(self) -> bool:
        """Whether the copy was trained to its end."""
        return (self.copy / SCORES).exists()

    @property
    def judged(self) -> float | None:
        """What the judge says of the copy, its FID; None without a judge."""
        found = read_judged(self.copy)
        return found.scores.get(JUDGED) if found else None

    def is_better(self, than: float) -> bool:
        """Whether the copy's score is better than another."""
        after = self.after
        return after is not None and (after > than if self.maximise else after < than)

    def words(self) -> str:
        """Format what training on has brought.

        >>> Finalist(3, Path("no"), Path("no"), "val/fid", False, {"val/fid": 40.0}).words()
        'val/fid 40 → no score'
        """
        after = "no score" if self.after is None else f"{self.after:.4g}"
        judged = [found.scores[JUDGED] for run in (self.run, self.copy)
                  if (found := read_judged(run)) and JUDGED in found.scores]  # fmt: skip
        said = f", {JUDGED} {' → '.join(f'{fid:.4g}' for fid in judged)}" if self.judged is not None else ""
        return f"{self.score} {self.before:.4g} → {after}{said}"


def read(winner: Path, count: int) -> list[Finalist]:
    """Read from the folder of a best model which trial won and which are next, `count` of them or fewer.

    The copies are beside it. A DataError if its `choice.json` is damaged.
    """
    choice = RunDir(winner).choice()
    try:
        if choice is None:
            raise KeyError("trial")
        objective = choice["objectives"][0]
        others = choice.get("runners_up", [])[: count - 1]  # earlier versions named none
        return [
            Finalist(
                trial=int(one["trial"]),
                run=Path(one["run"]),
                copy=winner.with_name(f"{LONGER}-{int(one['trial'])}" if one in others else LONGER),
                score=str(objective["name"]),
                maximise=objective["direction"] == "maximize",
                values={str(name): float(one["values"][name]) for name in (o["name"] for o in choice["objectives"])},
            )
            for one in (choice, *others)
        ]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{winner} does not say which trial is the best. Give the same line again.") from error


def best(finalists: Sequence[Finalist]) -> Finalist | None:
    """Choose the copy to export; None if none is better than the trial that won the search, the first of them.

    If the judge has seen all that are better, it chooses among them: what was searched by one network's features is
    compared by another's. Else the score does, of equals the first.
    """
    better = _better(finalists)
    if not better:
        return None
    sign = -1 if better[0].maximise else 1
    judge = _judge_chooses(better)
    return min(better, key=lambda one: (one.judged if judge else sign * (one.after or 0.0)) or 0.0)


def _better(finalists: Sequence[Finalist]) -> list[Finalist]:
    return [one for one in finalists if one.is_better(finalists[0].before)]


def _judge_chooses(better: Sequence[Finalist]) -> bool:
    return len(better) > 1 and all(one.judged is not None for one in better)


def verdict(finalists: Sequence[Finalist], failed: Mapping[int, str]) -> str:
    """Say what training on has brought; `failed` are the reasons of trials that could not be, at least one was."""
    chosen, first = best(finalists), finalists[0]
    if len(finalists) == 1:
        said = "it is better" if chosen else "it is no better, so it is taken as it was"
        return f"Trained on, {said}: {first.words()}."
    trained = [one for one in finalists if one.trial not in failed]
    if chosen is None:
        said = f"none is better than trial {first.trial} was, which is taken as it was"
    else:
        said = f"trial {chosen.trial} is the best by {JUDGED if _judge_chooses(_better(finalists)) else first.score}"
    told = "; ".join(f"trial {one.trial}: {one.words()}" for one in trained)
    lost = "".join(f" Trial {trial} could not be trained on: {why}" for trial, why in failed.items())
    return f"Trained on, {said}. {told[0].upper()}{told[1:]}.{lost}"


def copy_to_train(finalist: Finalist) -> list[str]:
    """Copy a finished trial to a folder where it is a single run that was not finished, unless that is there.

    Returns the overrides that it was configured with, without those that only a trial has. A DataError if the trial's
    folder lacks something, or holds links.
    """
    trial, target = finalist.run, finalist.copy
    refuse_links_within(trial, "trial", DataError)
    if not target.exists():
        new = target.with_name(f"{target.name}.partial")
        shutil.rmtree(new, ignore_errors=True)  # of a start that was killed
        (new / LAST_CHECKPOINT.parent).mkdir(parents=True)
        config: Any = OmegaConf.create(RunDir(trial).config())
        config.trial = None
        OmegaConf.save(config, new / CONFIG)
        for part in (PROVENANCE, BEST_CHECKPOINT, LAST_CHECKPOINT):
            if not (trial / part).is_file():
                raise DataError(f"{trial} lacks {part}.")
            shutil.copy2(trial / part, new / part)
        new.rename(target)
    words = [str(word) for word in OmegaConf.load(trial / ".hydra" / "overrides.yaml")]
    own = [f"trial.{key}=null" for key in ("number", "study", "storage")]
    return [word for word in words if not word.startswith(OTHERS)] + own
