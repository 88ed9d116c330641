r"""Command lines that a record keeps, which may be a stranger's: repeated as advice only if they could be a sweep's.

The provenance of a run and the attributes of a study keep the line that began them, and `catsweep.export.seeds`,
`catsweep.report.reproduce` and `catsweep.search.dashboard` repeat it to people, who type it. So it may start nothing
but our script, or the script of one's own app, and set nothing but data of a configuration.
"""

import re
import shlex
from collections.abc import Sequence

from catsweep.printing import readable_name
from catsweep.search import foreign

SCRIPT = "src/train.py"  # as `catsweep.training.provenance` keeps it, wherever it was started
SWEPT = ("-m", "--multirun")
# Of another app: a file beside the studies, or below, but none that came within what was given to us.
APP = re.compile(r"(?!(?:sweeps|outputs|multirun)/)(?:\w[\w-]*/)*\w[\w-]*\.py", re.ASCII)
# Of hydra.sweeper all that names no code and no storage; of Hydra where the results go.
OF_HYDRA = re.compile(
    r"hydra/sweeper|hydra/launcher|hydra/sweeper/sampler|hydra\.sweep\.dir|hydra\.sweeper\."
    r"(study_name|n_trials|n_jobs|direction|seed|params(\.[\w./@+-]+)?|conditions|baseline|enqueue|duplicates"
    r"|prune_metric|prune_direction|timeout|retries|trial_timeout|max_failure_rate|max_same_failures|lease|gpus"
    r"|gpus_per_slot|draw_ahead|allow_change|confirm|dry_run|trial_minutes|objective)",
    re.ASCII,
)
OPTION = re.compile(r"[\w.-]+", re.ASCII)  # the name of one
ACTS = re.compile(r"\$\{|_target_|\btrust\b|\bhydra\b")  # in a value: looked up here, or names what runs


def is_plain(words: object, apps: bool = False) -> bool:
    """Whether the words, without the interpreter, are a sweep's: a script, -m, and overrides of data.

    Args:
        words: as a record has them.
        apps: whether the script may be that of another app, which is where the record was found.
    """
    if not isinstance(words, list | tuple) or not words or not all(isinstance(word, str) for word in words):
        return False
    script, *rest = words
    is_script = script == SCRIPT or (apps and bool(APP.fullmatch(script)))
    return is_script and all(word in SWEPT or _is_override(word) for word in rest)


def plain_line(line: object) -> str:
    """A line that a study keeps, as a shell takes it, if it is `python` and such words; else nothing."""
    try:
        words: Sequence[str] = shlex.split(line) if isinstance(line, str) else []
    except ValueError:
        return ""
    return shlex.join(words) if words[:1] == ["python"] and is_plain(words[1:], apps=True) else ""


def _is_override(word: str) -> bool:
    if word != readable_name(word) or ACTS.search(word.partition("=")[2]):
        return False
    if word.startswith("~"):
        return word == "~logger" or bool(foreign.KEY.fullmatch(word[1:]))
    key, equals, value = word.lstrip("+").partition("=")
    if key == "logger" or key.startswith("hydra/"):
        return bool(OPTION.fullmatch(value) and (key == "logger" or OF_HYDRA.fullmatch(key)))
    return bool(equals) and bool(foreign.KEY.fullmatch(key) or OF_HYDRA.fullmatch(key))
