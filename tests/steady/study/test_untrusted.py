"""Studies of strangers: what their trials may set, and what CMA-ES reads back."""

import pickle
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState, create_trial
from tests.audit import watched

from catsweep.configuration import CONF
from steady.exceptions import StudyError
from steady.propose import pruning
from steady.propose.checks import REFUSALS
from steady.propose.sampling import Samplers
from steady.propose.space import Space
from steady.reporting import TrialReporter
from steady.study import meta, untrusted

pytestmark = pytest.mark.security

LOAD = "pytorch_lightning.LightningModule.load_from_checkpoint"
SPACE = Space.parse({"optimizer": "choice(adam, sgd)", "optimizer.lr": "interval(0.1, 0.2)"}, [])


class Evil:
    def __init__(self, act: Callable[..., Any], *args: Any) -> None:
        self.act, self.args = act, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.act, self.args


# --- parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model._target_", LOAD),
        ("+model._target_", LOAD),
        ("++model.x._target_", 1),
        ("model.activation._args_", 1),
        ("trust", "os"),
        ("+trust", 1),
        ("trust.0", "os"),
        ("hydra.run.dir", "x"),
        ("hydra/job_logging", "x"),
        ("hydra/launcher@hydra.launcher", "x"),
        ("+hydra.job_logging.handlers.x.class", "x"),
        ("trial.storage", "x"),
        ("logger.entity", "somebody"),
        ("logger", "wandb"),
        ("resume", "x"),
        ("~model", 1),
        ("model=x", 1),
        ("", 1),
        ("a b", 1),
        ("data.source", "/etc"),
        ("data.source", "${oc.env:HOME}"),
        ("model.activation", "{_target_: os.system}"),
        ("loss", "[a]"),
        ("loss", "'a'"),
        ("optimizer", "{_target_: os.system}"),
        ("optimizer", "radam"),
        ("optimizer.lr", "0.1"),
        ("optimizer.lr", "{_target_: os.system}"),
    ],
)
def test_a_study_sets_nothing_that_steers(name: str, value: Any) -> None:
    with pytest.raises(StudyError, match="no study may set"):
        SPACE.overrides({name: value})


@pytest.mark.parametrize(
    ("params", "written"),
    [
        ({"optimizer": "sgd", "optimizer.lr": 0.15}, ("optimizer=sgd", "optimizer.lr=0.15")),
        ({"optimizer.lr": 7.0}, ("optimizer.lr=7.0",)),  # of a range that was changed since
        ({"model.beta": 0.5, "loss": "l1_ssim", "model/x": None}, ("model.beta=0.5", "loss=l1_ssim", "model/x=null")),
    ],
)
def test_what_a_sweep_draws_or_drew_is_set(params: dict[str, Any], written: tuple[str, ...]) -> None:
    assert SPACE.overrides(params) == written


def test_what_a_function_of_the_users_draws_may_be_any_text() -> None:
    untrusted.check_params({"data.source": "data/raw of mine"}, {}, extended=True)
    for name, value in (("trust", "x"), ("a", "{b: {_target_: os.system}}"), ("a", "${oc.env:HOME}")):
        with pytest.raises(StudyError):
            untrusted.check_params({name: value}, {}, extended=True)


def test_a_finished_trial_of_a_stranger_is_no_job() -> None:
    study = optuna.create_study()
    params = {"model._target_": LOAD, "+model.checkpoint_path": "x"}
    kinds: dict[str, BaseDistribution] = {name: CategoricalDistribution([value]) for name, value in params.items()}
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0, params=params, distributions=kinds))
    with pytest.raises(StudyError, match="_target_"):
        SPACE.overrides(study.best_trial.params)


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "{_target_: os.system}", True, 1.5, None, [1]], ids=repr)
def test_a_number_that_a_study_keeps_is_one(value: Any) -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(value=0.0, user_attrs={meta.ATTEMPT: value}))
    with pytest.raises(StudyError, match="whole number"):
        untrusted.whole(study.trials[0], meta.ATTEMPT)


WORDS = ["model", "trust", "hydra", "_target_", "_args_", "x", "optimizer", "sgd", "data", "source", "logger", "0", "~"]
TEXTS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    "=",
    "${oc.env:HOME}",
    ",",
    " ",
    "'",
    '"',
    "\\",
    "/",
    "@",
    ".",
    "+",
    "os.system",
    LOAD,
]
PIECES = st.lists(st.sampled_from([*WORDS, *TEXTS]), min_size=1, max_size=5).map("".join)
KEYS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(".".join) | PIECES


@pytest.fixture(scope="module")
def conf() -> Iterator[None]:
    with initialize_config_dir(str(CONF)):
        yield


@pytest.mark.usefixtures("conf")
@given(params=st.dictionaries(KEYS, PIECES | st.integers() | st.booleans() | st.none(), min_size=1, max_size=2))
@settings(max_examples=60)
def test_no_job_of_a_study_names_what_conf_does_not(params: dict[str, Any]) -> None:
    try:
        found = compose("train", list(SPACE.overrides(params)))
    except (StudyError, *REFUSALS):
        return
    assert (list(found.trust), found.trial.storage) == ([], None)
    told = " ".join(file.read_text() for file in CONF.rglob("*.yaml"))
    for name in _targets(OmegaConf.to_container(found)):
        assert re.search(rf"_target_: {re.escape(name)}[\n,}}]", told)


def _targets(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value[key] for key in value if key == "_target_"] + [n for v in value.values() for n in _targets(v)]
    return [name for item in value for name in _targets(item)] if isinstance(value, list) else []


# --- the pruner, which a trial reads from its study


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "catsweep.export.graphs.load_bundle", "folder": "x"},
        {"_target_": "catsweep.metrics.extractors.torch.load", "f": "x", "weights_only": False},
        {"_target_": "catsweep.models.vae.VAE.load_from_checkpoint", "checkpoint_path": "x"},
        {"_target_": "optuna.pruners._percentile.np.load", "file": "x", "allow_pickle": True},
        {"_target_": "optuna.pruners.PatientPruner", "patience": 1, "wrapped_pruner": {"_target_": "os.getcwd"}},
    ],
    ids=lambda node: node["_target_"],
)
def test_a_pruner_is_one_of_a_list(node: dict[str, Any]) -> None:
    assert callable(pkgutil.resolve_name(node["_target_"]))  # else it would be refused for not being there
    study = optuna.create_study()
    study.set_user_attr("pruning", {"pruner": node, "metrics": ["m"], "directions": ["minimize"]})
    reporter = TrialReporter(study, study.ask().number)
    with watched() as done, pytest.raises(Exception, match="whitelist"):
        reporter.report(1, {"m": 0.5})
    assert done == []


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_pruner_of_optuna_can_still_be_had() -> None:
    inner = {"_target_": "optuna.pruners.MedianPruner"}
    built = pruning.build({"_target_": "optuna.pruners.PatientPruner", "patience": 1, "wrapped_pruner": inner}, ["m"])
    assert isinstance(built, optuna.pruners.PatientPruner)


# --- the state of CMA-ES


def study_with(content: bytes) -> optuna.Study:
    """A study whose trials keep this as the state of CMA-ES."""
    study = optuna.create_study()
    for n in range(3):
        study.add_trial(
            create_trial(
                value=float(n),
                params={"x": 0.1 * n, "y": 0.2},
                distributions={name: optuna.distributions.FloatDistribution(0, 1) for name in ("x", "y")},
                system_attrs={"cma:optimizer:0": content.hex(), "cma:generation": 0},
            )
        )
    return study


def draw(study: optuna.Study) -> None:
    made = Samplers({"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 1}, 0, Space.parse({}, []))(3)
    study.sampler = made
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.suggest_float("y", 0, 1)


def states(tmp_path: Path) -> dict[str, Any]:
    mark = tmp_path / "mark"
    return {
        "a function": Evil(Path.touch, mark),
        "within an array": np.array([Evil(Path.touch, mark)], dtype=object),
        "a builtin": Evil(eval, f"open({str(mark)!r}, 'w')"),
        "in a state": {"optimizer": [Evil(Path.touch, mark)]},
    }


@pytest.mark.parametrize("name", states(Path()))
def test_a_state_that_runs_code_is_refused(name: str, tmp_path: Path) -> None:
    with watched() as done, pytest.raises(StudyError, match=r"state of CMA-ES, something that names"):
        draw(study_with(pickle.dumps(states(tmp_path)[name])))
    assert not [line for line in done if not line.startswith("pickle.find_class")]
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "reference",
    [("cmaes._cma", "np.load"), ("cmaes._cma", "math"), ("cmaes", "__loader__"), ("cmaes._cma", "np.core"),
     ("numpy", "load"), ("numpy._core.multiarray", "fromfile"), ("cmaes_", "x"), ("os", "system"), ("", "")],
    ids=":".join,
)  # fmt: skip
def test_a_state_names_no_way_out_of_its_package(reference: tuple[str, str]) -> None:
    module, name = (text.encode() for text in reference)
    four = b"\x80\x04\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93."
    old = b"c" + module + b"\n" + name + b"\n."
    for content in (four, old):
        with pytest.raises(StudyError):
            draw(study_with(content))


@pytest.mark.parametrize("content", [b"", b"\x80", b"no pickle", pickle.dumps(3)[:-1]], ids=repr)
def test_a_damaged_state_is_one_message(content: bytes) -> None:
    if content:  # without one there is no state
        with pytest.raises(StudyError, match="cannot be read"):
            draw(study_with(content))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("kind", [{}, {"with_margin": True}, {"use_separable_cma": True}, {"lr_adapt": True}], ids=str)
def test_its_own_state_is_read_back(kind: dict[str, bool]) -> None:
    study = optuna.create_study()
    node = {"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 1, **kind}
    make = Samplers(node, 0, Space.parse({}, []))
    for number in range(16):
        study.sampler = make(number)
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1))
    kept = [trial.system_attrs for trial in study.trials]
    assert any("optimizer" in key for attributes in kept for key in attributes)
