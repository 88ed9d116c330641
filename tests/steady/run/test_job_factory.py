"""What a trial's job is made of."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.trial import create_trial

from hydra_plugins.steady_sweeper.config import SteadySweeperConf
from steady import options
from steady.exceptions import StudyError
from steady.grammar import quoted
from steady.jobs.cluster_executor import ClusterExecutor
from steady.propose.space import Space
from steady.run.job_factory import JobFactory
from steady.study import meta

Make = Callable[..., JobFactory]


@pytest.fixture
def make(app: tuple[HydraContext, DictConfig]) -> Make:
    context, config = app

    def jobs(**keys: Any) -> JobFactory:
        every = {f.name: getattr(SteadySweeperConf(), f.name) for f in dataclasses.fields(SteadySweeperConf)}
        read = options.read({**every, "sampler": {}, "study_name": "cats", **keys}, "app", "out")
        return JobFactory(read, Space.parse({"x": "interval(0.0, 1.0)"}, ["steps=2"]), context, lambda cfg: 0.0, config)

    return jobs


def test_a_job_has_its_parameters_what_is_fixed_and_who_it_is(make: Make) -> None:
    study = optuna.create_study(study_name="cat's")
    study.add_trial(create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs={meta.ATTEMPT: 2}))
    assert make().overrides(study, study.trials[0]) == (
        "steps=2",
        "trial.number=0",
        "trial.attempt=2",
        r"trial.study='cat\'s'",
        "trial.storage='sqlite:///sweeps/cats/study.db'",
    )


def test_an_app_without_the_node_is_told_nothing(make: Make) -> None:
    jobs = make()
    assert jobs.has_trial_node
    study = optuna.create_study()
    study.add_trial(create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs={meta.ATTEMPT: 0}))
    with open_dict(jobs.config):
        del jobs.config.trial
    assert not jobs.has_trial_node
    assert jobs.overrides(study, study.trials[0]) == ("steps=2",)


TRIAL = create_trial(
    value=0.0,
    params={"x": 0.5},
    distributions={"x": optuna.distributions.FloatDistribution(0.0, 1.0)},
    user_attrs={meta.ATTEMPT: 0},
)


@pytest.mark.parametrize(
    ("template", "folder"),
    [
        ("${hydra.job.num}", "0"),
        ("trial-${hydra.job.num}", "trial-0"),
        ("${hydra.job.id}_${hydra.job.name}", "0_app"),
        ("x${x}/${hydra:job.num}", "x0.5/0"),
        ("${hydra.job.override_dirname}", "steps=2,x=0.5"),
        ("${hydra:job.override_dirname}", "steps=2,x=0.5"),
        ("${hydra_override_dirname:}", "steps=2,x=0.5"),
        ("${hydra.sweeper.study_name}", "cats"),
        ("${oc.env:THE_WEATHER}-${half:${x}}", "wet-0.25"),
        ("${trial.attempt}${trial.number}", "00"),
        ("/elsewhere/${hydra.job.num}", "/elsewhere/0"),
    ],
)
def test_folders_are_named_as_the_job_names_them(
    make: Make, monkeypatch: pytest.MonkeyPatch, template: str, folder: str
) -> None:
    monkeypatch.setenv("THE_WEATHER", "wet")
    OmegaConf.register_resolver("half", lambda value: float(value) / 2, replace=True)
    jobs = make()
    with open_dict(jobs.config.hydra):
        jobs.config.hydra.overrides.hydra += [f"hydra.sweep.subdir='{template}'", "hydra.sweeper.study_name=cats"]
        jobs.config.hydra.job.name = "app"
        OmegaConf.update(jobs.config, "hydra.sweep.subdir", template)
        OmegaConf.update(jobs.config, "hydra.sweeper.study_name", "cats")
    jobs.config.hydra.overrides.hydra.append("hydra.job.name=app")
    study = optuna.create_study(study_name="cats")
    study.set_user_attr("sweep_dir", "out")
    study.add_trial(TRIAL)
    [trial] = study.trials
    folders = jobs.folders(study)
    chosen = folders.choose(trial, [trial])
    assert folders.base / (chosen or folders.name(trial)) == Path("out", folder)
    trial.user_attrs = {**trial.user_attrs, **({} if chosen is None else {meta.FOLDER: chosen})}
    assert jobs.folder_override(folders, trial) == (f"hydra.sweep.subdir='{folder}'",)


def test_a_folder_that_cannot_be_composed_is_left_to_the_job_to_complain_of(make: Make) -> None:
    jobs = make()
    with open_dict(jobs.config.hydra):
        OmegaConf.update(jobs.config, "hydra.sweep.subdir", "${nothing}")
    jobs.config.hydra.overrides.hydra.append("hydra.sweep.subdir='${nothing}'")
    study = optuna.create_study(study_name="cats")
    study.set_user_attr("sweep_dir", "out")
    study.add_trial(TRIAL)
    folders = jobs.folders(study)
    assert folders.choose(study.trials[0], []) is None
    assert jobs.folder_override(folders, study.trials[0]) == ()
    assert folders.of(study.trials[0]) == Path("out/0")


def test_every_job_works_where_the_study_began(make: Make) -> None:
    jobs = make()
    jobs.set_sweep_dir("out/the first 'day'")
    assert jobs.config.hydra.sweep.dir == "out/the first 'day'"
    assert OverridesParser.create().parse_override(jobs.config.hydra.overrides.hydra[-1]).value() == (
        "out/the first 'day'"
    )


@given(
    st.text(st.sampled_from("'\\\"=,:/ a0é"), min_size=1)
    | st.text(st.characters(exclude_characters="$", min_codepoint=32))
)
def test_hydra_reads_what_was_quoted(text: str) -> None:
    assert OverridesParser.create().parse_override(f"x={quoted(text)}").value() == text


def test_a_preflight_gives_facts_or_stops_all(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "looks.py").write_text(
        "def well(cfg):\n    return {'steps': cfg.steps}\ndef badly(cfg):\n    raise OSError('no photos here')\n"
        "def never(cfg):\n    import time\n    time.sleep(600)\n"
        "def tried(cfg, examples=None):\n"
        "    return {'wrong': examples and examples.problems(lambda one: ['no'] * (one.x > 0.5))}\n"
        "def placed(cfg, examples):\n    return {'elsewhere': examples.elsewhere}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make(preflight="looks.well").preflight() == {"steps": 2}
    assert make(preflight="looks.tried").preflight() == {"wrong": ["x=1.0: no"]}
    assert make(preflight="looks.tried").preflight(thorough=False) == {"wrong": None}
    assert make(preflight="looks.placed").preflight() == {"elsewhere": False}
    jobs = make(preflight="looks.placed")
    vars(jobs)["engine"] = object()  # that of a cluster
    assert jobs.preflight() == {"elsewhere": True}
    with pytest.raises(StudyError, match=r"nothing was started.*no photos here"):
        make(preflight="looks.badly").preflight()
    with pytest.raises(StudyError, match=r"nothing was started.*No sign of progress for 0\.2 s.*trial_timeout"):
        make(preflight="looks.never", trial_timeout=0.2).preflight()


def test_a_launcher_for_slurm_is_replaced_by_jobs_of_our_own(make: Make) -> None:
    jobs = make(n_jobs=3)
    slurm = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    with open_dict(jobs.config.hydra):
        jobs.config.hydra.launcher = {"_target_": slurm, "name": "cats", "timeout_min": 5, "python": "/usr/bin/python3"}
    executor = jobs.executor()
    assert isinstance(executor, ClusterExecutor)
    assert executor.engine is jobs.engine
    assert (executor.slots, executor.trials_per_job, executor.name) == (3, 1, "cats")
    assert executor.root == Path("sweeps/cats/jobs").absolute()
    assert "/usr/bin/python3" in executor.command
    assert executor.engine.options == ("--time=5", "--signal=B:TERM@120")  # type: ignore[attr-defined]
    executor.close()


@pytest.mark.security
def test_links_in_the_folder_of_jobs_are_refused(make: Make, tmp_path: Path) -> None:
    """What is written there, and removed, must not be somebody else's."""
    (tmp_path / "victim").mkdir()
    jobs = make().jobs_folder
    jobs.parent.mkdir(parents=True)
    jobs.symlink_to(tmp_path / "victim")
    with pytest.raises(StudyError, match=r"jobs is a link out of the study, to .*victim"):
        make().check([])
    jobs.unlink()
    jobs.mkdir()
    (jobs / "0123456789ab").symlink_to(tmp_path / "victim")
    with pytest.raises(StudyError, match="0123456789ab is a link out of the folder of jobs"):
        make().check([])
