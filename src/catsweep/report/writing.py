"""The report of a study: `python src/report.py` writes report.html, report.md and its pictures beside the study.

Last of what a sweep leaves to read. Reads `sweeps/<study>/` and, as far as they are still there, the run folders and
the ready set; changes none of them. A sweep that is still running can be reported at any moment.
"""

from pathlib import Path

import optuna
from omegaconf import DictConfig

from catsweep import places
from catsweep.atomic import write_text
from catsweep.ownership import require_file
from catsweep.printing import say
from catsweep.report import markdown, page
from catsweep.report.story import tell
from catsweep.report.words import counted
from catsweep.studies import find_study

PAGE = "report.html"
SIGN = ": what the sweep found"  # in the title of both


def run(cfg: DictConfig) -> Path:
    """Write both reports, and say where.

    Args:
        cfg: as in `conf/report.yaml`.

    Returns:
        `sweeps/<study>/report.html`.

    Raises:
        ExportError: there is no such study, or `select` is the number of no finished trial.
        ConfigError: `select` means nothing for this study.
        PlaceError: the study's folder cannot be written.
        TakenError: a file of that name is there that is no report.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of scores that are infinite; the page tells of them
    folder = find_study(Path(cfg.sweeps), None if cfg.study is None else str(cfg.study))
    places.check(folder, cfg)
    story = tell(folder, Path(cfg.outputs) / folder.name, Path(cfg.ready), cfg.select, bool(cfg.plotly))
    path = folder / PAGE
    for page_of_ours in (path, folder / markdown.PAGE):
        require_file(page_of_ours, SIGN, "sweeps=DIR")
    write_text(path, page.render(story, folder))
    beside = markdown.write(story, folder)
    told = f"{counted(len(story.record.trials), 'trial')} of study {folder.name}"
    say(f"{told}: {path} ({path.stat().st_size / 1e6:.1f} MB), and {beside}")
    return path
