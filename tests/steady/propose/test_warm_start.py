"""Which trials of other studies a sampler is shown, as what, and when a study is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.types import HydraContext
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState, create_trial
from tests.steady.left import load

from hydra_plugins.steady_sweeper.config import SteadySweeperConf
from steady import options
from steady.exceptions import StudyError
from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.propose.warm_start import MOST, NUMBER, PriorReader, _as_ranges, _from_ranges, best
from steady.run.job_factory import JobFactory
from steady.run.study_opener import StudyOpener
from steady.storage import open_storage
from steady.study import meta
from steady.study.constraints import parse_all
from steady.study.contract import Contract

PARAMS = {"x": "interval(-1.0, 1.0)", "y": "choice(a, b)"}
CONFIG = {"epochs": 5, "name": "old", "seed": 0}
OLD = Contract(None, ["minimize"], Space.parse(PARAMS, []).describe(), {}, CONFIG, {"data": "abc"})
Make = Callable[..., optuna.Study]


def now(params: dict[str, str] = PARAMS, **changes: Any) -> Contract:
    keys: dict[str, Any] = {
        "config": {**CONFIG, "name": "new", "seed": 1},
        "facts": {"data": "abc"},
        "fixed": {},
    } | changes
    return Contract(None, ["minimize"], Space.parse(params, []).describe(), **keys)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a study in `sweeps/NAME`, of trials with these parameters and values."""
    monkeypatch.chdir(tmp_path)

    def made(name: str, *trials: tuple[dict[str, Any], Any], kept: object = OLD, **space: str) -> optuna.Study:
        storage = open_storage(f"sqlite:///sweeps/{name}/study.db")
        study = optuna.create_study(study_name=name, storage=storage)
        study.set_user_attr(meta.CONTRACT, kept.to_dict() if isinstance(kept, Contract) else kept)
        searched = Space.parse(PARAMS | space, []).parameters
        for params, value in trials:
            more = value if isinstance(value, dict) else {"value": float(value)}
            distributions = {key: searched[key] for key in params}
            study.add_trial(create_trial(params=params, distributions=distributions, **more))
        return study

    return made


def reader(
    params: dict[str, str] = PARAMS, arguments: list[str] | None = None, bounds: Any = None, groups: Any = None
) -> PriorReader:
    space = Space.parse(params, arguments or [])
    url, limits = "sqlite:///sweeps/new/study.db", parse_all(bounds or {})
    return PriorReader(Path("sweeps"), "new", url, space, now(), limits, groups or {})


def shown(made: PriorReader, asked: Any = "auto", contract: Contract | None = None, **keys: Any) -> list[FrozenTrial]:
    made = dataclasses.replace(made, now=contract or now())
    found = {"ignore": ["name", "seed"], "allowed": []} | keys
    return made.read(made.choose(asked, made.now.facts, **found))


def test_finished_and_pruned_trials_are_shown_as_this_space_has_them_and_marked(make: Make) -> None:
    make(
        "old", ({"x": 0.5, "y": "a"}, 1.0), ({"x": 0.25, "y": "b"}, {"state": TrialState.FAIL}),
        ({"x": -1.0, "y": "b"}, {"state": TrialState.PRUNED, "intermediate_values": {1: 7.0}}),
        ({"x": 0.75, "y": "b"}, {"value": 1.0, "user_attrs": {meta.DUPLICATE_OF: 0}}),
        ({"x": 0.1, "y": "a"}, float("inf")),
        ({"x": 0.2, "y": "a"}, {"state": TrialState.PRUNED, "constraints": {"out of memory": 1.0}}),
    )  # fmt: skip
    found = shown(reader())
    assert [trial.user_attrs for trial in found] == [{meta.PRIOR_OF: f"old/{number}"} for number in (0, 2, 5)]
    assert {trial.number for trial in found} == {NUMBER}
    assert found[0].values == [1.0]
    assert found[1].intermediate_values == {1: 7.0}
    assert found[2].constraints == {"out of memory": 1.0}
    assert all(trial.distributions == reader().space.parameters for trial in found)


def test_only_configurations_of_this_space_are_shown(make: Make) -> None:
    make("old", ({"x": 0.5, "y": "a"}, 1), ({"x": 0.9, "y": "a"}, 2), ({"x": 0.1, "y": "b"}, 3))
    narrow = {"x": "interval(0.0, 0.6)", "y": "choice(c, a)"}
    assert [trial.params for trial in shown(reader(narrow), contract=now(narrow))] == [{"x": 0.5, "y": "a"}]


def test_what_was_not_searched_has_the_value_that_it_had_and_what_is_not_searched_now_is_left_out(make: Make) -> None:
    make("old", ({"x": 0.5, "y": "a"}, 1), kept=Contract(**{**vars(OLD), "fixed": {"+group": "g"}}))
    wide = {"x": "interval(-1.0, 1.0)", "epochs": "choice(5, 9)", "group": "choice(f, g)"}
    assert [trial.params for trial in shown(reader(wide), contract=now(wide))] == [
        {"x": 0.5, "epochs": 5, "group": "g"}
    ]
    unknown = {"x": "interval(-1.0, 1.0)", "other": "choice(1, 2)"}
    assert shown(reader(unknown), contract=now(unknown)) == []


SIZES = ("choice(64, 128)", 64, 128)
NETS = ("choice(vae, dcgan)", "vae", "dcgan")


@pytest.mark.parametrize(
    ("searched", "stands", "other", "changes", "groups"),
    [
        (*SIZES, {"fixed": {"+some.key": "64"}}, {}),
        (*SIZES, {"config": {**CONFIG, "some": {"key": 64}}}, {}),
        ("choice([64,64], [128])", "[64,64]", "[128]", {"config": {**CONFIG, "some": {"key": [64, 64]}}}, {}),
        ("choice('1', 1)", "1", 1, {"config": {**CONFIG, "some": {"key": "1"}}}, {}),
        (*NETS, {"config": {**CONFIG, "some": {"key": {"depth": 3}}}}, {"some.key": "vae"}),
        (*NETS, {"fixed": {"some.key": "vae"}}, {"some.key": "dcgan"}),
    ],
)
def test_a_trial_with_another_value_than_stands_where_nothing_is_searched_is_left_out(
    make: Make, searched: str, stands: Any, other: Any, changes: dict[str, Any], groups: dict[str, str]
) -> None:
    space = Space.parse({**PARAMS, "some.key": searched}, []).describe()
    trials = [({"x": 0.5, "y": "a", "some.key": value}, 1) for value in (stands, other)]
    make("old", *trials, kept=Contract(**{**vars(OLD), "space": space}), **{"some.key": searched})
    found = shown(reader(groups=groups), contract=now(**changes))
    assert [(trial.user_attrs[meta.PRIOR_OF], trial.params) for trial in found] == [("old/0", {"x": 0.5, "y": "a"})]


def test_what_stands_is_read_of_the_configuration_and_its_groups(app: tuple[HydraContext, DictConfig]) -> None:
    context, config = app
    made = options.read({**vars(SteadySweeperConf()), "sampler": None, "study_name": "new"}, "app", "out")
    space = Space.parse({"x": PARAMS["x"]}, [])
    others = StudyOpener(JobFactory(made, space, context, lambda cfg: 0.0, config))._others
    assert others.groups["hydra/sweeper"] == "steady"
    assert "x" not in others.now.config
    assert others.now.config["steps"] == 4


def test_trials_of_before_a_change_of_settings_are_not_chosen(make: Make) -> None:
    study = make("old", *(({"x": n / 20, "y": "a"}, n) for n in range(4)))
    notes = reader().choose("auto", OLD.facts, ["name", "seed"], [])
    study.set_user_attr(meta.CHANGED_AT, 3)
    assert [trial.value for trial in shown(reader())] == [3.0]
    assert len(reader().read(notes)) == 4  # chosen when they ran as this study's
    study.set_user_attr(meta.CHANGED_AT, 4)
    with pytest.raises(StudyError, match=r"no finished trial .* since its settings changed at trial 4"):
        shown(reader(), ["old"])


def test_an_accepted_change_of_settings_is_noted_and_one_of_the_space_is_not(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    wide = ("hydra.sweeper.params.x='interval(-2,2)'", "hydra.sweeper.allow_change=[x,steps]")
    found = []
    for n, more in enumerate(((), wide, (*wide, "steps=5"), (*wide, "steps=5")), 1):
        done = sweep("study=old", f"hydra.sweeper.n_trials={n}", *more)
        assert done.returncode == 0, done.stderr
        found.append(meta.get(load(tmp_path, "old"), meta.CHANGED_AT))
    assert found == [None, None, 2, 2]
    new = sweep("study=new", "hydra.sweeper.n_trials=1", "hydra.sweeper.warm_start=old", "steps=5", *wide)
    assert "Warm start: the sampler begins with 2 trials of old." in new.stdout, new.stderr


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"facts": {"data": "xyz"}}, r"facts\.data: abc → xyz"),
        ({"config": {**CONFIG, "epochs": 9}}, r"config\.epochs: 5 → 9"),
        ({"config": {**CONFIG, "a": 1, "b": 2, "c": 3}}, r"config\.a: null → 1; config\.b: null → 2 \(and 1 more\)"),
        ({"fixed": {"some.key": "3"}}, r"fixed\.some\.key: null → 3"),
        ({"objective": ["fid"]}, "objective: null → "),
        ({"directions": ["maximize"]}, "directions"),
    ],
)
def test_trials_that_ran_otherwise_are_refused_by_name_and_passed_over_by_auto(
    make: Make, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], told: str
) -> None:
    make("old", ({"x": 0.5, "y": "a"}, 1))
    caplog.set_level("INFO", "steady")
    other = Contract(**{**vars(now()), **changes})
    with pytest.raises(StudyError, match=rf"cannot take the study old: its trials ran otherwise.*{told}"):
        shown(reader(), ["old"], other)
    assert shown(reader(), "auto", other) == []
    assert "The study old is no warm start: its trials ran otherwise" in caplog.text


def test_a_difference_can_be_accepted_by_name_but_not_another_objective(make: Make) -> None:
    make("old", ({"x": 0.5, "y": "a"}, 1))
    longer = now(config={**CONFIG, "epochs": 9})
    assert len(shown(reader(), ["old"], longer, allowed=["epochs"])) == 1
    with pytest.raises(StudyError, match="objective"):
        shown(reader(), ["old"], Contract(**{**vars(now()), "objective": ["fid"]}), allowed=["objective"])
    group = now(fixed={"hparams_search": "other"})  # shows in the configuration, in what it sets
    assert len(shown(reader(), ["old"], group)) == 1


def test_constraints_are_those_of_this_study(make: Make) -> None:
    noted = {"value": 1.0, "user_attrs": {meta.NOTED: {"size": 20}}, "constraints": {"size": -0.5, "memory": 0.25}}
    make("old", ({"x": 0.5, "y": "a"}, noted), kept=Contract(**{**vars(OLD), "constraints": {"size": "<= 40"}}))
    assert shown(reader(bounds={"size": "<= 10"}))[0].constraints == {"memory": 0.25, "size": 1.0}
    assert shown(reader())[0].constraints == {"memory": 0.25}


def test_a_finished_trial_that_did_not_note_what_is_bounded_here_is_left_out(make: Make) -> None:
    noted = {"value": 1.0, "user_attrs": {meta.NOTED: {"size": 5}}}
    make("old", ({"x": 0.5, "y": "a"}, 1), ({"x": 0.2, "y": "a"}, noted))
    found = shown(reader(bounds={"size": "<= 10"}))
    assert [(trial.user_attrs[meta.PRIOR_OF], trial.constraints) for trial in found] == [("old/1", {"size": -0.5})]
    both = reader(bounds={"size": "<= 10", "speed": ">= 1"})
    assert shown(both) == []
    with pytest.raises(StudyError, match=r"no finished trial .* that noted size, speed"):
        shown(both, ["old"])


def test_what_a_bound_of_the_other_study_kept_from_training_is_not_taken_for_bad(make: Make) -> None:
    kept = Contract(**{**vars(OLD), "constraints": {"size": "<= 40"}})
    stopped = {"state": TrialState.PRUNED, "user_attrs": {meta.NOTED: {"size": 60}}, "constraints": {"size": 0.5}}
    trained = {"value": 1.0, "user_attrs": {meta.NOTED: {"size": 20}}}
    make("old", ({"x": 0.5, "y": "a"}, trained), ({"x": 0.2, "y": "a"}, stopped), kept=kept)
    for bounds, numbers in (({"size": "<= 80"}, [0]), ({}, [0]), ({"size": "<= 50"}, [0, 1])):
        found = shown(reader(bounds=bounds))
        assert [trial.user_attrs for trial in found] == [{meta.PRIOR_OF: f"old/{number}"} for number in numbers]


def test_what_is_fixed_within_a_searched_group_is_a_difference(make: Make) -> None:
    groups = {"optimizer": "choice(adam, sgd)", "optimizer.lr": "interval(0.1, 1.0)"}
    fixed = {"optimizer.betas": "[0.5,0.9]", "optimizer.lr": "0.5"}
    old = {**vars(OLD), "space": Space.parse({"optimizer": "choice(adam, sgd)"}, []).describe(), "fixed": fixed}
    make("old", ({"optimizer": "adam"}, 1), kept=Contract(**old), optimizer="choice(adam, sgd)")
    with pytest.raises(StudyError, match=r"fixed\.optimizer\.betas: \[0\.5,0\.9\] → null"):
        shown(reader(groups), ["old"], now(groups))
    same = now(groups, fixed={"optimizer.betas": "[0.5,0.9]"})
    found = shown(reader(groups, ["optimizer.betas=[0.5,0.9]"]), ["old"], same)
    assert [trial.params for trial in found] == [{"optimizer": "adam", "optimizer.lr": 0.5}]


def test_the_best_feasible_ones_come_first_each_once() -> None:
    made = [create_trial(value=value) for value in (3.0, 1.0)]
    space = Space.parse(PARAMS, []).parameters
    for x, value in ((0.1, 5.0), (0.2, 2.0), (0.2, 2.5), (0.3, 4.0)):
        made.append(create_trial(value=value, params={"x": x, "y": "a"}, distributions=space))
    made.append(create_trial(value=0.0, params={"x": 0.9, "y": "a"}, distributions=space, constraints={"size": 1.0}))
    assert best(made, ["minimize"]) == [{}, {"x": 0.2, "y": "a"}, {"x": 0.3, "y": "a"}]
    assert best([], ["minimize"]) == []


def test_what_a_study_has_noted_is_read_again_though_the_other_has_gone_on(make: Make) -> None:
    study = make("old", ({"x": 0.5, "y": "a"}, 1))
    notes = reader().choose("auto", OLD.facts, ["name", "seed"], [])
    assert notes[0]["trials"] == 1
    study.add_trial(study.trials[0])
    assert len(reader().read(notes)) == 1
    assert dataclasses.replace(reader({"x": PARAMS["x"]}), now=now(fixed={"y": "b"})).read(notes) == []
    with pytest.raises(StudyError, match="other trials under these numbers"):
        reader().read([{**notes[0], "digest": "0"}])
    with pytest.raises(StudyError, match=r"learned from trials of gone .*No study 'gone'.*allow_change=\[warm_start\]"):
        reader().read([{**notes[0], "study": "gone"}])


@pytest.mark.security
@pytest.mark.parametrize(
    "kept",
    [None, [1], {"space": 1}, {**OLD.to_dict(), "constraints": [1]}, {**OLD.to_dict(), "space": {"x": 3}},
     {**OLD.to_dict(), "directions": {"a": 1}}],
)  # fmt: skip
def test_a_damaged_study_is_passed_over_and_refused_by_name(make: Make, kept: object) -> None:
    make("old", ({"x": 0.5, "y": "a"}, 1), kept=kept)
    assert shown(reader()) == [] or kept == {**OLD.to_dict(), "space": {"x": 3}}
    Path("sweeps/broken").mkdir()
    Path("sweeps/broken/study.db").write_text("no database")
    with pytest.raises(StudyError, match="cannot take the study broken"):
        shown(reader(), ["broken"])


@pytest.mark.security
def test_auto_follows_no_note_to_a_server_and_no_name_out_of_the_folder(make: Make) -> None:
    make("old", ({"x": 0.5, "y": "a"}, 1))
    Path("sweeps/far").mkdir()
    Path("sweeps/far/study.json").write_text('{"storage": "postgresql://evil.example/studies"}')
    assert len(shown(reader())) == 1
    assert reader().read("x") == []
    several: list[Any] = [
        [3], [{}], [{"study": "../old", "numbers": "0", "digest": ""}],
        [{"study": "old", "numbers": "0-999999999", "digest": ""}],
    ]  # fmt: skip
    for damaged in several:
        with pytest.raises(StudyError, match="learned from trials of"):
            reader().read(damaged)


@given(st.sets(st.integers(0, 10_000), max_size=MOST))
def test_numbers_are_written_in_short_and_read_as_they_were(numbers: set[int]) -> None:
    if numbers:
        assert _from_ranges(_as_ranges(sorted(numbers))) == numbers


def test_a_sampler_that_learns_draws_near_the_best_of_before_and_a_blind_one_does_not(make: Make) -> None:
    made = [({"x": -1 + n / 20, "y": "a"}, abs(-1 + n / 20 - 0.6)) for n in range(40)]
    make("old", *made)
    prior = shown(reader())
    space = reader().space

    def drawn(sampler: str, known: list[FrozenTrial]) -> list[float]:
        study = optuna.create_study()
        node = {"_target_": f"optuna.samplers.{sampler}"}
        proposer = Proposer(study, space, Samplers(node, 0, space), prior=known)
        return [proposer.propose().commit().params["x"] for _ in range(9)]

    far = [sum(abs(x - 0.6) for x in drawn("TPESampler", known)) / 9 for known in ([], prior)]
    assert far[1] < 0.5 * far[0]
    assert drawn("RandomSampler", prior) == drawn("RandomSampler", [])


def test_a_sampler_that_tries_all_tries_also_what_was_tried_before() -> None:
    space = Space.parse({"x": "choice(1, 2, 3)"}, [])
    prior = [create_trial(value=1.0, params={"x": 1}, distributions=space.parameters)]

    def drawn(known: list[FrozenTrial]) -> list[int]:
        samplers = Samplers({"_target_": "optuna.samplers.BruteForceSampler"}, 0, space)
        proposer = Proposer(optuna.create_study(), space, samplers, prior=known)
        return [proposer.propose().commit().params["x"] for _ in range(3)]

    assert drawn(prior) == drawn([])


def test_of_a_long_study_the_last_trials_are_shown(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make("old", *(({"x": n / 20, "y": "a"}, n) for n in range(4)))
    monkeypatch.setattr("steady.propose.warm_start.MOST", 2)
    assert [trial.value for trial in shown(reader())] == [2.0, 3.0]


def test_every_sampler_takes_them(make: Make) -> None:
    make("old", *(({"x": n / 20, "y": "ab"[n % 2]}, n) for n in range(12)))
    prior, space = shown(reader()), reader().space
    for sampler in ("TPESampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler", "RandomSampler"):
        study = optuna.create_study()
        proposer = Proposer(study, space, Samplers({"_target_": f"optuna.samplers.{sampler}"}, 0, space), prior=prior)
        for number in range(4):
            trial = proposer.propose().commit()
            assert trial.number == number
            study.tell(number, 1.0)
        assert len(study.trials) == 4
