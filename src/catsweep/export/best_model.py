"""The best trial of a study, copied to a folder of its own: `python src/best_model.py`.

Reads `sweeps/<study>/study.db`, beside it `confirmation.json` if the sweep has confirmed its winner, and
`outputs/<study>/<trial>/`; writes `outputs/best_model/`, which has the layout of
a run folder, so that `generate` and `export` (the next steps) take it as they would take any run::

    checkpoints/best.ckpt  config.yaml  metrics.json  provenance.json  samples.png     the trial's own
    judge.json                                                                         the judge's scores, if it has any
    choice.json  choice.md                                                             why it was this one
"""

import json
import math
import re
import shutil
from pathlib import Path

from omegaconf import DictConfig

from catsweep import printing
from catsweep.atomic import replacing_folder
from catsweep.errors import DataError, ExportError
from catsweep.export import opinion
from catsweep.export.confirmed import confirmed_choice, current, follows
from catsweep.export.explanation import Explanation
from catsweep.export.seeds import Seeds, confirming_line
from catsweep.export.selection import choose
from catsweep.export.trials import find_run, find_study, read_trials
from catsweep.metrics.judge import COMMAND, FILE, run_scores
from catsweep.names import inside
from catsweep.ownership import Kind
from catsweep.places import check, named
from catsweep.records import read_json, require_whole

DOCUMENTS = ("config.yaml", "metrics.json", "provenance.json")
CHOICE = "choice.json"
ANOTHER = "Choose another trial, select=NUMBER, or name another run; this one can be trained again."
SCORED = ("best", "last")  # the checkpoints that a run may be scored from
BEST_MODEL = Kind(
    "the best model",
    "out=DIR",
    (*DOCUMENTS, CHOICE, "choice.md", FILE, "samples.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
    sign=CHOICE,
    later=("generated_*.png", "interpolation*.png", "reconstructions.png", "attribute_*.png"),  # of generate.py
)  # fmt: skip


def run(cfg: DictConfig) -> Path:
    """Choose, copy, and say why.

    Args:
        cfg: as in `conf/best_model.yaml`.

    Returns:
        The folder with the best model.

    Raises:
        ExportError: there is no study, no finished trial, or no run folder to copy from.
        ConfigError: `select` means nothing for this study.
        PlaceError: `out` cannot be written.
    """
    # A study may be called 2026, which the command line reads as a number.
    folder = find_study(Path(cfg.sweeps), None if cfg.study is None else str(cfg.study))
    runs = Path(cfg.outputs) / folder.name
    trials = read_trials(folder, runs)
    choice = choose(cfg.select, trials.front, trials.finished, trials.objectives)
    confirmed, remark = current(trials, folder)
    followed = confirmed is not None and follows(cfg.select, trials)
    if confirmed and followed:
        choice = confirmed_choice(confirmed, trials)
    source = find_run(runs, choice.candidate, trials.objectives, trials.folders.get(choice.candidate.number))
    number = choice.candidate.number
    seeds = Seeds(number, confirmed, followed, confirming_line(source, number, trials.ranked))
    found = opinion.read(trials, runs, [number])
    if (source / FILE).exists() and run_scores(source, runs).judged is None:
        left = f"What the judge said of it is left out: {FILE} in {source} is damaged, or of other scores. {COMMAND}."
        remark = f"{remark} {left}".strip()
    explanation = Explanation(trials, choice, source, seeds, found, remark)
    target = Path(cfg.out)
    for place in (target, target.parent):  # a file there is not a best model of before, and stays
        check(place, cfg)
    copy_run(source, target, explanation)
    console = printing.console()
    explanation.print(console)
    console.print(f"Copied to {target}.", highlight=False, soft_wrap=True)
    return target


def copy_run(source: Path, target: Path, explanation: Explanation) -> None:
    """Copy what a model consists of, and the record of its choice; all of it, or nothing.

    Args:
        source: the run folder.
        target: replaced as a whole, if it is an earlier one; an error leaves that untouched.
        explanation: of the choice.

    Raises:
        ExportError: the run folder lacks a part, or has one that is a link out of it.
        TakenError: the target is something that catsweep did not make.
    """
    checkpoint = Path("checkpoints") / f"{scored_checkpoint(source)}.ckpt"
    parts = [Path(name) for name in DOCUMENTS] + [checkpoint]
    if missing := [str(part) for part in parts if not (source / part).is_file()]:
        raise ExportError(
            f"The run folder {source} of the chosen trial lacks {', '.join(missing)}. "
            f"Choose another trial with select=NUMBER, or train this one again."
        )
    page = samples_of(source)
    if away := [str(part) for part in (*parts, page) if part and not inside(source, source / part)]:
        raise ExportError(
            f"In the run folder {source} of the chosen trial, {', '.join(away)} is a link to a file outside. "
            f"Put the file itself there, or choose another trial with select=NUMBER."
        )
    if run_scores(source).judged is not None:
        parts.append(Path(FILE))
    try:
        require_whole(source / checkpoint)
    except DataError as error:
        raise ExportError(f"{error} {ANOTHER}") from error
    with named(target), replacing_folder(target, BEST_MODEL) as folder:
        for part in parts:
            (folder / part).parent.mkdir(exist_ok=True)
            shutil.copy2(source / part, folder / part)
        if page is not None:
            shutil.copy2(source / page, folder / "samples.png")
        (folder / CHOICE).write_text(json.dumps(explanation.as_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / "choice.md").write_text(explanation.as_markdown(), encoding="utf-8")


def scored_checkpoint(run: Path) -> str:
    """Name of the checkpoint that the scores in a run's `metrics.json` were measured on (`best` or `last`).

    Raises:
        ExportError: the run has no scores.
    """
    try:
        name = read_json(run / "metrics.json")["checkpoint"]
    except (DataError, KeyError) as error:
        raise ExportError(f"{run}/metrics.json is not the record of a finished run ({error}). {ANOTHER}") from error
    if name not in SCORED:
        raise ExportError(
            f"{run}/metrics.json must name the checkpoint that was scored, {' or '.join(SCORED)}; got {name!r}. "
            f"{ANOTHER}"
        )
    return str(name)


def samples_of(run: Path) -> Path | None:
    """The sample grid that shows a run's scored checkpoint best: the latest one drawn up to its epoch.

    Training may have gone on after it, for the worse. `None` if the run was too short to draw one.
    """
    found = read_json(run / "metrics.json").get("epoch")
    scored_at = found if isinstance(found, int) else math.inf
    pages = sorted((run / "samples").glob("epoch_*.png"))
    grids = [page for page in pages if re.fullmatch(r"epoch_[0-9]{1,9}", page.stem)]
    drawn_by_then = [page for page in grids if int(page.stem.removeprefix("epoch_")) <= scored_at]
    latest = max(drawn_by_then or grids, default=None)
    return None if latest is None else latest.relative_to(run)
