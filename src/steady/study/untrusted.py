"""Check what is read from a study that somebody else may have written: parameters, pickles, command lines.

Parameters become overrides of a job, by which one could name a class or trust a package; so those that are not searched
have to be plain. Optuna's CMA-ES keeps its state with the trials, pickled. And the command line that began a study is
repeated to people, who type it; so it may start only a training script, and set only data.
"""

import io
import pickle
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import optuna.samplers._cmaes as cmaes_sampler
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from steady import grammar
from steady.exceptions import StudyError
from steady.printing import readable_name
from steady.study import meta

# Keys of the task's own configuration, but for those that say who is trusted, what runs, or where records go.
KEY = re.compile(r"(?!(hydra|trust|trial|logger|resume)\b)[A-Za-z]\w*([./@-]+[A-Za-z0-9]\w*)*", re.ASCII)
WORD = re.compile(r"[\w.+-]*", re.ASCII)
ARRAYS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("_core", "core") for name in ("_reconstruct", "scalar")),
}


def check_params(params: Mapping[str, Any], searched: Mapping[str, BaseDistribution], extended: bool) -> None:
    """Raise a StudyError for parameters of a trial that no sweep would have drawn from the space `searched`.

    If it is `extended`, a function of the user's draws others, whose texts may be any but interpolations and
    `_target_`.

    >>> check_params({"lr": 0.1, "model": "vae"}, {}, extended=False)
    """
    for name, value in params.items():
        if not _is_settable(name, value, searched.get(name), extended):
            raise StudyError(
                f"A trial of the study has {name}={value!r}, which is not searched here, and no study may set. "
                "Do not go on with somebody else's study unless you know how it was made."
            )


def whole(trial: FrozenTrial, name: str) -> int:
    """Get an attribute of a trial that is a whole number, to be written into an override; a StudyError if it is not.

    >>> from optuna.trial import create_trial
    >>> whole(create_trial(value=1.0, user_attrs={meta.SEED: 3}), meta.SEED)
    3
    """
    value = meta.get(trial, name)
    if type(value) is not int:
        raise StudyError(f"{name} of trial {trial.number} is a whole number in a study of ours; it is {value!r}.")
    return value


def _is_settable(name: str, value: Any, distribution: BaseDistribution | None, extended: bool) -> bool:
    is_number = value is None or isinstance(value, int | float)
    if isinstance(distribution, CategoricalDistribution):
        with suppress(ValueError):
            distribution.to_internal_repr(value)
            return True
        return False
    if distribution is not None:
        return is_number
    is_text = isinstance(value, str) and not any(part in value for part in ("${", "_target_"))
    is_word = is_text and bool(extended or WORD.fullmatch(value))
    return bool(KEY.fullmatch(grammar.bare(name))) and (is_number or is_word)


def restrict_unpickling() -> None:
    """Let CMA-ES unpickle only the classes of its state: those of the package cmaes, and arrays.

    Replaces `pickle` in Optuna's module, and so for all samplers of the process.
    """
    vars(cmaes_sampler)["pickle"] = SimpleNamespace(dumps=pickle.dumps, loads=_loads)


def _loads(content: bytes) -> Any:
    try:
        return _State(io.BytesIO(content)).load()
    except StudyError:
        raise
    except Exception as error:  # of a damaged pickle, nearly any
        raise StudyError(f"The state of CMA-ES that the study keeps cannot be read: {error!r}.") from error


class _State(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAYS:
            return super().find_class(module, name)
        if _of_cmaes(module) and name.isidentifier():  # a.b would lead on to what cmaes has imported
            found = super().find_class(module, name)
            if isinstance(found, type) and _of_cmaes(found.__module__):
                return found
        raise StudyError(
            f"The study keeps, as the state of CMA-ES, something that names {module}.{name}, and would run code. Do "
            "not go on with this study, or take another sampler."
        )


def _of_cmaes(module: str) -> bool:
    return module.partition(".")[0] == "cmaes"


SCRIPT = "src/train.py"  # as `catsweep.training.provenance` records it
SWEPT = ("-m", "--multirun")
# The script of another app: a file beside the studies or below, but not in folders that may have come with a study.
APP = re.compile(r"(?!(?:sweeps|outputs|multirun)/)(?:\w[\w-]*/)*\w[\w-]*\.py", re.ASCII)
# Keys of hydra.sweeper that name no code and no storage, and of Hydra that say where the results go.
OF_HYDRA = re.compile(
    r"hydra/sweeper|hydra/launcher|hydra/sweeper/sampler|hydra/sweeper/pruner|hydra\.sweep\.dir|hydra\.sweeper\."
    r"(study_name|n_trials|n_jobs|direction|seed|params(\.[\w./@+-]+)?|conditions|constraints|warm_start|baseline"
    r"|enqueue|duplicates"
    r"|prune_metric|prune_direction|promotion(\.(eta|rungs))?|timeout|retries|trial_timeout|max_failure_rate"
    r"|max_same_failures|lease|gpus"
    r"|gpus_per_slot|draw_ahead|allow_change|confirm|dry_run|trial_minutes|objective|storage_patience"
    r"|trials_per_job|(sampler|pruner)\.[a-z]\w*)",
    re.ASCII,
)
OPTION = re.compile(r"[\w.-]+", re.ASCII)  # of a configuration group
ACTS = re.compile(r"\$\{|_target_|\btrust\b|\bhydra\b")  # in a value: looked up here, or names what runs


def is_plain(words: object, apps: bool = False) -> bool:
    """Tell whether the words of a command, without the interpreter, only sweep: a script, -m, and overrides of data.

    With `apps` the script may be that of another app.

    >>> is_plain(["src/train.py", "-m", "model=vae"]), is_plain(["src/train.py", "hydra.launcher=evil"])
    (True, False)
    """
    if not isinstance(words, list | tuple) or not words or not all(isinstance(word, str) for word in words):
        return False
    script, *rest = words
    is_script = script == SCRIPT or (apps and bool(APP.fullmatch(script)))
    return is_script and all(word in SWEPT or _is_override(word) for word in rest)


def plain_line(line: object) -> str:
    """Quote a command that a study keeps for a shell; empty unless it is `python` and words that `is_plain` accepts.

    >>> plain_line("python app.py -m lr=0.1"), plain_line("rm -rf /")
    ('python app.py -m lr=0.1', '')
    """
    try:
        words: Sequence[str] = shlex.split(line) if isinstance(line, str) else []
    except ValueError:
        return ""
    return shlex.join(words) if words[:1] == ["python"] and is_plain(words[1:], apps=True) else ""


def _is_override(word: str) -> bool:
    if word != readable_name(word) or ACTS.search(word.partition("=")[2]):
        return False
    if word.startswith("~"):
        return word == "~logger" or bool(KEY.fullmatch(word[1:]))
    key, equals, value = word.lstrip("+").partition("=")
    if key == "logger" or key.startswith("hydra/"):
        return bool(OPTION.fullmatch(value) and (key == "logger" or OF_HYDRA.fullmatch(key)))
    return bool(equals) and bool(KEY.fullmatch(key) or OF_HYDRA.fullmatch(key))
