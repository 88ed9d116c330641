"""Every sampler can be had, seeded for its trial, and what cannot be had is named."""

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from hydra_plugins.hydra_optuna_sweeper import config as upstream
from omegaconf import OmegaConf
from optuna.samplers import BaseSampler

from steady.exceptions import ConfigError
from steady.propose.sampling import Samplers
from steady.propose.space import Space

GROUP = {
    "tpe": upstream.TPESamplerConfig,
    "random": upstream.RandomSamplerConfig,
    "grid": upstream.GridSamplerConfig,
    "nsgaii": upstream.NSGAIISamplerConfig,
    "nsgaiii": upstream.NSGAIIISamplerConfig,
    "qmc": upstream.QMCSamplerConfig,
    "cmaes": upstream.CmaEsSamplerConfig,
    "gp": upstream.GPSamplerConfig,
}
SPACE = Space.parse({"n": "range(0, 50)", "m": "range(0, 50)"}, [])
CONDITIONAL = Space.parse({"x": "interval(0.0, 1.0)", "y": "choice(a, b)"}, [], {"x": "y=b"})


def samplers(target: str, seed: int = 1, space: Space = SPACE, **arguments: Any) -> Samplers:
    return Samplers({"_target_": f"optuna.samplers.{target}", **arguments}, seed, space)


def draw(sampler: BaseSampler) -> float:
    return optuna.create_study(sampler=sampler).ask().suggest_float("x", 0, 1)


@pytest.mark.parametrize("name", GROUP)
def test_each_of_upstreams_group_is_made_and_draws_without_a_warning(name: str) -> None:
    package = {"cmaes": "cmaes", "gp": "scipy", "qmc": "scipy"}.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    node: Mapping[str, Any] = OmegaConf.structured(GROUP[name])
    made = Samplers(node, 1, SPACE)
    study = optuna.create_study()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(3):
            study.sampler = made(number)
            trial = study.ask()
            study.tell(trial, float(SPACE.suggest(trial)["n"]))
    assert len({str(trial.params) for trial in study.trials}) == 3


@pytest.mark.parametrize("arguments", [{"seed": None}, {"seed": 7}, {}])
def test_a_trial_has_a_seed_of_its_own_whatever_the_node_says_of_seeds(arguments: dict[str, Any]) -> None:
    made = Samplers({"_target_": "optuna.samplers.RandomSampler", **arguments}, 1, SPACE)
    assert draw(made(3)) == draw(made(3)) == draw(samplers("RandomSampler")(3))
    assert len({draw(made(3)), draw(made(4)), draw(made(3, 1)), draw(samplers("RandomSampler", seed=2)(3))}) == 4


def test_a_huge_or_negative_seed_is_a_seed_too() -> None:
    for seed in (-1, 2**40):
        draw(samplers("RandomSampler", seed)(0))
        samplers("GridSampler", seed)(0)


def test_a_sampler_without_a_seed_can_be_had() -> None:
    made = Samplers({"_target_": "optuna.samplers.PartialFixedSampler", "fixed_params": {"n": 1},
                     "base_sampler": {"_target_": "optuna.samplers.RandomSampler"}}, 1, SPACE)  # fmt: skip
    assert isinstance(made(0), optuna.samplers.PartialFixedSampler)


def test_grids_and_sequences_keep_one_seed_and_their_order() -> None:
    grids = [samplers("GridSampler")(number) for number in (0, 7)]
    assert grids[0]._all_grids == grids[1]._all_grids  # type: ignore[attr-defined]
    assert grids[0]._all_grids != samplers("GridSampler", seed=2)(0)._all_grids  # type: ignore[attr-defined]
    sequences = [samplers("QMCSampler", scramble=True)(number) for number in (0, 7)]
    assert sequences[0]._seed == sequences[1]._seed  # type: ignore[attr-defined]


def test_what_is_not_in_a_sequence_is_drawn_anew_for_each_trial() -> None:
    made = samplers("QMCSampler")
    drawn = {draw(made(number)._independent_sampler) for number in range(3)}  # type: ignore[attr-defined]
    assert len(drawn) == 3
    own = samplers("QMCSampler", independent_sampler={"_target_": "optuna.samplers.TPESampler", "seed": 1})(0)
    assert isinstance(own._independent_sampler, optuna.samplers.TPESampler)  # type: ignore[attr-defined]


def test_conditions_make_tpe_group_its_parameters_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = samplers("TPESampler", space=CONDITIONAL, multivariate=False)(0)
    assert sampler._group  # type: ignore[attr-defined]
    assert sampler._multivariate  # type: ignore[attr-defined]
    assert not samplers("TPESampler")(0)._group  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("optuna.samplers.NoSuchSampler", r"is not there\. .*Optuna has .*optuna\.samplers\.CmaEsSampler, "),
        ("optuna.samplers.TPESamplr", r"Did you mean optuna\.samplers\.TPESampler\?"),
        ("steady.ParetoPruner", "whitelist"),
        ("os.system", "whitelist"),
        ("my_package.MySampler", r"expected optuna\.samplers\.\*.*\. .*hydra\.sweeper\.enqueue"),
        ("shutil.rmtree", "shutil.rmtree"),
        ("hydra_plugins.hydra_optuna_sweeper.config.raise_motpe_removed", "hydra/sweeper/sampler=tpe"),
        ("optuna.samplers.PartialFixedSampler", "missing 2 required"),
    ],
)
def test_a_sampler_that_cannot_be_made_is_named(target: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){target}.*{words}"):
        Samplers({"_target_": target}, 0, SPACE)(0)


def test_a_wrong_argument_is_named() -> None:
    for target in ("TPESampler", "NSGAIISampler"):
        with pytest.raises(ConfigError, match="nonsense"):
            samplers(target, nonsense=1)(0)


def test_a_grid_of_a_continuous_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="x is continuous"):
        samplers("GridSampler", space=CONDITIONAL)(0)
