"""A configuration that was composed ahead is the one that Hydra composes when the job is known."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from steady.composition import Composition

FILES = {
    "config": (
        "defaults: [{model: vae}, {optimizer: adam}, _self_]\n"
        "lr: 0.1\nsteps: {first: 1, last: '${steps.first}'}\nlist: [1, 2]\nname: '${model.name}-${lr}'\n"
        "when: '${now:%f}'\nhydra: {sweep: {dir: out, subdir: '${hydra.job.override_dirname}'}}\n"
    ),
    "model/vae": "name: vae\nwidth: 8\n",
    "model/gan": "name: gan\nwidth: 16\ndepth: 2\n",
    "optimizer/adam": "beta: 0.9\n",
    "optimizer/sgd": "momentum: 0.0\n",
}
VALUES = [
    *(
        "lr=0.5",
        "lr=1e-3",
        "lr=null",
        "++lr=2",
        "steps.first=7",
        "steps.last='${lr}'",
        "list=[3]",
        "list.0=9",
        "+more=1",
    ),
    *("+new={a: 1, b: [x]}", "name='a b'", "model.width=4", "model.name=x", "optimizer.beta=0.5"),
    "hydra.sweep.subdir='x=1'",
    "model={width: 3}",
]
OTHERS = [
    *("model=gan", "optimizer=sgd", "model=vae", "~steps", "~optimizer", "unknown=1", "model.depth=3", "lr=1,2", "lr"),
    *("hydra.job.chdir=true", "hydra.verbose=true", "hydra/launcher=basic", "hydra.sweeper.max_batch_size=2"),
    "hydra[sweeper][max_batch_size]=3",
    "+optimizer@second=sgd",
]
GIVEN = [
    [],
    ["model=gan"],
    ["lr=9", "optimizer=sgd"],
    ["x=1,2", "model=vae,gan"],
]  # on a multirun's command line
Multirun = tuple[ConfigLoader, DictConfig]


@pytest.fixture(scope="module", params=GIVEN, ids=str)
def multirun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Multirun]:
    folder = tmp_path_factory.mktemp("conf")
    for name, content in FILES.items():
        path: Path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    with initialize_config_dir(str(folder)):
        config = compose("config", fixed_of(request.param), return_hydra_config=True)
        config.hydra.overrides.task = request.param
        assert config.when  # of this moment, for all jobs
        yield GlobalHydra.instance().config_loader(), config


def fixed_of(words: list[str]) -> list[str]:
    return [word for word in words if "," not in word]


def outcome(composed: DictConfig | None, error: Exception | None) -> object:
    if composed is None:
        return type(error), str(error)
    flags = [OmegaConf.is_struct(composed), OmegaConf.is_readonly(composed), OmegaConf.is_readonly(composed.hydra)]
    return OmegaConf.to_container(composed, resolve=False), composed.when, composed.hydra.job.override_dirname, flags


@settings(max_examples=12)
@given(overrides=st.lists(st.sampled_from([*VALUES, *VALUES, *OTHERS]), max_size=4, unique=True), fixed=st.booleans())
def test_it_is_what_hydra_composes(multirun: Multirun, overrides: list[str], fixed: bool) -> None:
    loader, config = multirun
    if fixed:
        overrides = fixed_of(config.hydra.overrides.task) + overrides
    parts = Composition(loader, config)
    ways: list[Callable[[list[str]], DictConfig]] = [
        lambda words: loader.load_sweep_config(config, words),
        parts.compose,
        functools.partial(parts.compose, keep=True),
        parts.compose,  # of what was kept
    ]
    results = []
    for way in ways:
        try:
            results.append(outcome(way(overrides), None))
        except Exception as error:
            results.append(outcome(None, error))
    assert results[1:] == results[:1] * 3


def test_a_job_with_other_values_is_not_composed_anew(multirun: Multirun, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, config = multirun
    parts = cloudpickle.loads(cloudpickle.dumps(Composition(loader, config)))  # as it travels
    monkeypatch.setattr(type(loader), "load_sweep_config", None)
    for value in (0.25, 0.5):
        assert parts.compose([*fixed_of(config.hydra.overrides.task), f"lr={value}"]).lr == value


def test_other_groups_are_composed_once_if_they_are_kept(multirun: Multirun, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, config = multirun
    parts = Composition(loader, config)
    assert parts.compose(["model=gan", "optimizer=sgd", "model.depth=3"], keep=True).model.depth == 3
    monkeypatch.setattr(type(loader), "load_sweep_config", None)
    assert parts.compose(["model=gan", "optimizer=sgd", "lr=0.25"]).model.depth == 2
