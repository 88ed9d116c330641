"""Judge runs and bundles by another network, and read what a study's judgements say of its choice.

The node `judge` of the configuration (the group `metrics/judge`) says by which network; it is never an objective, and
no part of a study's contract. The judgement is `judge.json` in the folder of the run or the bundle, see
`catsweep.metrics.judge`.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import optuna
from omegaconf import DictConfig, OmegaConf

from catsweep.errors import CatsweepError, MetricError
from catsweep.instantiation import instantiate, trusting
from catsweep.metrics.judge import FID, JUDGED, Judge, Judged, rank_agreement, read_judged
from catsweep.runs import RunDir, load_run
from steady import safe_paths
from steady.printing import say
from steady.study import select

if TYPE_CHECKING:  # a choice is explained without torch
    from catsweep.metrics.scorer import Scorer
    from catsweep.models.generator import Generator

log = logging.getLogger(__name__)

Factory = Callable[..., Judge]  # from `beside`, the scorer of the run
BEST = 3  # trials that are judged however few are Pareto-optimal, so that there is an order to compare
FETCHED = "`make judge` fetches it; metrics/judge=none leaves this out."
_told: set[str] = set()  # hints of this process


def factory(cfg: DictConfig) -> Factory | None:
    """Make the judge of a configuration, its network opened and checked; it takes `beside`, the scorer of a run.

    Returns:
        None if there is none, or its file is not there and nobody has asked for it by name.

    Raises:
        MetricError: the file is not there, or no such network.
    """
    if (node := _node(cfg)) is None:
        return None
    if (file := _missing(node)) is not None:
        if not node.get("required", True):
            return None
        raise MetricError(
            f"Expected the network that judges in judge.extractor.file={file}; it is not there. {FETCHED}"
        )
    made: Factory = instantiate(node)
    return made


def absent(cfg: DictConfig) -> str:
    """Say, once in a process, why nothing is judged where it would be if the file were there; else empty."""
    node = _node(cfg)
    file = None if node is None or node.get("required", True) else _missing(node)
    if file is None:
        return ""
    hint = f"No other network judges what is drawn: {file} is not there. {FETCHED}"
    if hint in _told:
        return ""
    _told.add(hint)
    return hint


def _node(cfg: DictConfig) -> DictConfig | None:
    node = OmegaConf.select(cfg, "judge")
    return None if node is None or node.get("_target_") is None else node


def _missing(node: DictConfig) -> str | None:
    """The file of the judge's network, if it is not there."""
    file: str | None = OmegaConf.select(node, "extractor.file")
    return None if file is None or Path(file).expanduser().exists() else file


def judge_model(made: Factory, model: "Generator", folder: Path, scorer: "Scorer") -> Judged:
    """Judge a model as it was scored, and write that beside the scores in the folder of its run or bundle."""
    judged = made(beside=scorer).judge(model, RunDir(folder).metrics().scores)
    judged.write(folder)
    return judged


def judge_run(judge: Judge, folder: Path) -> Judged:
    """Judge a finished run by its scored checkpoint, unless that was done before in the same way.

    Raises:
        CatsweepError: the run is not whole, was trained on other photos, or cannot be judged.
    """
    safe_paths.refuse_links_within(folder, "run", MetricError)
    if (known := read_judged(folder)) and _measures(known) == _measures(judge):
        return known
    run = RunDir(folder)
    if run.provenance().get("data_digest") != judge.scorer.ready.digest:
        raise MetricError(f"{folder} was trained on other photos than those of {judge.scorer.ready.path}.")
    recorded = run.metrics().scores
    model, _ = load_run(folder, run.scored_checkpoint())
    judged = judge.judge(cast("Generator", model), recorded)
    judged.write(folder)
    return judged


def judge_study(study: optuna.Study, folder: Path, study_folder: Path, config: DictConfig) -> None:
    """Judge the Pareto set of a study, its best trials, and all runs of its confirmation.

    What was judged before is not judged again. One that cannot be judged is told, and the others are. `folder` has the
    runs, `config` is that of the sweep.
    """
    del study_folder
    if hint := absent(config):
        say(hint)
    with trusting(list(config.get("trust") or [])):
        if (made := factory(config)) is None or not (runs := chosen(study, folder)):
            return
        data = instantiate(config.data)
        data.prepare_data()
        judge = made(beside=instantiate(config.metrics)(ready=data.ready))
        say(f"Judging {len(runs)} runs by {judge.name}, {judge.scorer.samples} images of each")
        judged = list(_each(judge, runs))
    if agreement := rank_agreement(judged):
        say(agreement.sentence())


def chosen(study: optuna.Study, folder: Path) -> dict[str, Path]:
    """Select the runs of a study to judge: the folders of the best and of the confirmed, by a description."""
    from catsweep import study_record  # it imports what draws charts

    found = study_record.read(study, folder)
    best = [trial.number for trial in select.best_trials(study)]
    best += [number for number in select.candidates(study, BEST) if number not in best]
    by_number = {trial.number: trial.run for trial in found.trials}
    runs = {f"trial {number}": by_number.get(number) for number in best}
    for one in found.confirmations:
        if one.role == "finished":
            runs[f"trial {one.confirms} under seed {one.seed}"] = one.run
    return {name: run for name, run in runs.items() if run is not None}


def line(judged: Judged) -> str:
    """Format a judgement as one line: `judge/fid 95 (photos: 41)  judge/kid …`."""
    parts = []
    for name, score in judged.scores.items():
        photos = judged.reference.get(name)
        parts.append(f"{name} {score:.4g}" + ("" if photos is None else f" (photos: {photos:.4g})"))
    return "  ".join(parts)


def _each(judge: Judge, runs: dict[str, Path]) -> Iterator[Judged]:
    for name, folder in runs.items():
        try:
            judged = judge_run(judge, folder)
        except CatsweepError as error:
            log.warning("%s is not judged: %s", name, error)
            continue
        own = judged.recorded.get(FID)
        beside = "" if own is None else f", {FID} {own:.4g}"
        say(f"  {name}: {JUDGED} {judged.scores[JUDGED]:.4g}{beside}")
        yield judged


def _measures(judged: Judged | Judge) -> dict[str, dict[str, object]]:
    cards = judged.cards if isinstance(judged, Judged) else judged.cards()
    return {name: card.measure() for name, card in cards.items()}
