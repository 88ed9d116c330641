"""What a later start may change, and how a refusal reads."""

import json
from typing import Any

import pytest
from omegaconf import OmegaConf
from optuna.distributions import check_distribution_compatibility

from steady.exceptions import ConfigError, StudyError
from steady.propose.space import Space
from steady.study.constraints import Constraint
from steady.study.contract import Change, Contract, check, compare, freeze, has_other_choices, require_known

CONFIG = {"epochs": 5, "model": {"beta": 1.0, "size": 8}, "trial": {"number": 3}, "twice": "${epochs}", "hydra": {}}
PARAMS = {"lr": "interval(0.1, 0.2)", "loss": "choice(a, b)"}


def contract(
    params: dict[str, str] | None = None, arguments: list[str] | None = None, conditions: Any = None, **changes: Any
) -> Contract:
    space = Space.parse(params or PARAMS, arguments or [], conditions)
    keys: dict[str, Any] = {"objective": ["fid"], "directions": ["minimize"], "facts": {"data": "abc"}} | changes
    config = OmegaConf.create(keys.pop("config", CONFIG))
    return freeze(space=space, config=config, ignore=["trial", "seed"], **keys)


def through_json(one: Contract) -> Contract:
    return Contract.from_dict(json.loads(json.dumps(one.to_dict())))


def lines(before: Contract, now: Contract) -> list[str]:
    return [str(change) for change in compare(before, now)]


class TestFreeze:
    def test_leaves_out_hydra_the_searched_and_the_ignored(self) -> None:
        config = {**CONFIG, "lr": 0.15, "loss": {"name": "a"}, "seed": 3}
        assert contract(config=config).config == {"epochs": 5, "model": {"beta": 1.0, "size": 8}, "twice": 5}

    def test_ignores_fixed_parameters_below_an_ignored_key(self) -> None:
        arguments = ["trial.number=4", "seed=1", "+seed.extra=2", "hparams_search=x", "~model.size"]
        assert contract(arguments=arguments).fixed == {"hparams_search": "x", "~model.size": "deleted"}

    def test_searched_group_with_a_package_drops_what_it_fills(self) -> None:
        config = {"model": {"opt": {"lr": 1}, "size": 8}}
        assert contract({"optimizer@model.opt": "choice(a, b)"}, config=config).config == {"model": {"size": 8}}

    def test_what_hangs_on_the_searched_or_on_a_job_stays_as_written(self) -> None:
        config = {
            "lr": 0.15,
            "rate": "${lr}",
            "job": "${nowhere.known}",
            "a": {"b": [1, "${c}"]},
            "c": "???",
            "d": "${a}",
        }
        frozen = contract(config=config).config
        assert frozen == {"rate": "${lr}", "job": "${nowhere.known}", "a": {"b": [1, "${c}"]}, "c": "???", "d": "${a}"}

    def test_what_differs_from_start_to_start_stays_as_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CATS", "hunter2")
        config = {
            "key": "${oc.env:CATS}",
            "copy": "of ${key}",
            "day": "${now:%f}",
            "dir": "${hydra:runtime.cwd}/x",
            "n": 1,
        }
        frozen = contract(config=config).config
        assert frozen == config | {"copy": "of ${oc.env:CATS}"}

    def test_secrets_never_enter(self) -> None:
        url = "postgresql://me:hunter2@host/db"
        config = {
            "storage": "abc",
            "a": {"api_key": "hunter2", "token": "hunter2", "db_password": "hunter2"},
            "database": url,
            "server": "https://me:hunter2@host/x?y=1",
            "where": ["sqlite:///study.db"],
            "tokens": 5,
        }
        frozen = contract(
            config=config,
            arguments=[f"db='{url}'", "logger.api_key=hunter2", "at='sqlite:///x.db'"],
            facts={"from": url},
        )
        text = json.dumps(frozen.to_dict())
        assert "hunter2" not in text
        assert "sqlite" not in text
        assert "abc" not in text
        assert frozen.config["server"] == "https://***@host/x?y=1"
        assert frozen.config["tokens"] == 5

    def test_survives_json(self) -> None:
        odd = {1: "a", "nan": float("nan"), "inf": float("inf"), "list": [1, {"x": None}], "empty": {}}
        frozen = contract(config=odd, facts={"cards": {"fid": (1, 2)}}, arguments=["hparams_search=x"])
        assert through_json(frozen) == frozen
        assert (
            lines(through_json(frozen), contract(config=odd, facts=frozen.facts, arguments=["hparams_search=x"])) == []
        )


class TestCompare:
    @pytest.mark.parametrize(
        ("now", "wanted"),
        [
            ({}, []),
            ({"config": {**CONFIG, "epochs": 9}}, ["config.epochs: 5 → 9", "config.twice: 5 → 9"]),
            ({"config": {**CONFIG, "model": {"beta": 2.0, "size": 8}}}, ["config.model.beta: 1.0 → 2.0"]),
            ({"config": {**CONFIG, "model": {"beta": 1.0}}}, ["config.model.size: 8 → null"]),
            ({"config": {**CONFIG, "epochs": "5"}}, ["config.epochs: 5 → '5'", "config.twice: 5 → '5'"]),
            ({"config": {**CONFIG, "flags": [True, None]}}, ["config.flags: null → [true, null]"]),
            ({"config": {**CONFIG, "callbacks": {}}}, []),
            ({"params": PARAMS | {"loss": "choice(a, b, c)"}}, ["space.loss: choice(a, b) → choice(a, b, c)"]),
            ({"params": {"loss": "choice(a, b)"}}, ["space.lr: float 0.1..0.2 → null"]),
            ({"conditions": {"lr": "loss=a"}}, ["space.lr: float 0.1..0.2 → float 0.1..0.2 when loss=a"]),
            ({"arguments": ["hparams_search=x"]}, ["fixed.hparams_search: null → x"]),
            ({"facts": {"data": "xyz"}}, ["facts.data: abc → xyz"]),
            ({"facts": {"data": "abc", "cards": {"val/fid": {"n": 5}}}}, ["facts.cards.val/fid.n: null → 5"]),
            ({"directions": ["maximize"]}, ["directions: [minimize] → [maximize]"]),
            ({"objective": None}, ["objective: [fid] → null"]),
        ],
    )  # fmt: skip
    def test_each_difference_is_a_line(self, now: dict[str, Any], wanted: list[str]) -> None:
        assert lines(through_json(contract()), contract(**now)) == wanted

    def test_values_are_kept(self) -> None:
        now = contract(config={**CONFIG, "epochs": 9, "twice": 5})
        assert compare(contract(), now) == [Change("config", "epochs", 5, 9)]

    def test_fixing_a_key_at_the_value_it_had_is_no_change(self) -> None:
        assert lines(contract(), contract(arguments=["epochs=5", "++model.beta=1.0"])) == []

    def test_a_fixed_key_that_shows_in_the_configuration_is_one_line(self) -> None:
        added = contract(arguments=["+new=1"], config={**CONFIG, "new": 1})
        assert lines(contract(), added) == ["config.new: null → 1"]

    def test_sections_that_an_older_version_did_not_freeze_are_not_compared(self) -> None:
        older = contract().to_dict()
        del older["facts"], older["config"], older["objective"]
        now = contract(facts={"data": "xyz"}, objective=["kid"], config={"epochs": 9}, params={"lr": "interval(0, 1)"})
        assert {change.section for change in compare(Contract.from_dict(older), now)} == {"space"}
        assert Contract.from_dict(older).to_dict() == older

    def test_a_study_of_a_version_without_constraints_has_none(self) -> None:
        older = contract().to_dict()
        del older["constraints"], older["warm_start"]
        now = contract(constraints=[Constraint.parse("weights", "<= 5")], warm_start="auto")
        found = {change.section for change in compare(Contract.from_dict(older), now)}
        assert found == {"constraints", "warm_start"}

    def test_sections_of_a_newer_version_are_passed_over(self) -> None:
        assert Contract.from_dict(contract().to_dict() | {"weather": "fine"}) == contract()


class TestCheck:
    NOW: dict[str, Any] = {"config": {**CONFIG, "model": {"beta": 2.0, "size": 9}}}  # noqa: RUF012

    def test_a_section_without_keys_is_accepted_by_its_name(self) -> None:
        now = contract(warm_start="auto")
        with pytest.raises(StudyError, match=r"allow_change=\[warm_start\]"):
            check(contract(), now, [])
        assert [str(change) for change in check(contract(), now, ["warm_start"])] == ["warm_start: null → auto"]

    @pytest.mark.parametrize("name", ["config", "model", "config.model"])
    def test_a_section_or_a_prefix_accepts_all_below_it(self, name: str) -> None:
        assert len(check(contract(), contract(**self.NOW), [name])) == 2

    @pytest.mark.parametrize("name", ["model.beta", "config.model.beta", "mod", "facts", "model.beta.x"])
    def test_other_names_do_not(self, name: str) -> None:
        with pytest.raises(StudyError, match=r"config\.model\.size: 8 → 9"):
            check(contract(), contract(**self.NOW), [name])

    def test_the_whole_diff_and_the_names_that_accept_it_are_in_the_message(self) -> None:
        now = contract(**self.NOW, facts={"data": "xyz"})
        with pytest.raises(StudyError) as refused:
            check(contract(), now, ["model.beta", "gone"])
        text = str(refused.value)
        assert "config.model.beta: 1.0 → 2.0  (accepted)\n" in text
        assert "config.model.size: 8 → 9\n" in text
        assert "'hydra.sweeper.allow_change=[model.beta,gone,data,model.size]'" in text
        assert "hydra.sweeper.study_name=NEWNAME" in text
        assert len(check(contract(), now, ["model.beta", "gone", "data", "model.size"])) == 3

    def test_a_node_that_is_wholly_new_or_gone_is_one_line_and_one_name(self) -> None:
        adversarial = {"weight": 3.0, "start": 0.0, "discriminator": {"network": "lite1", "strides": [2, 4]}}
        older = contract(
            config={**CONFIG, "old": {"a": 1, "b": {"c": 2}}, "size": 1, "model": {"beta": 1.0, "size": 8}}
        )
        newer = contract(
            config={**CONFIG, "size": {"x": 1, "y": 2}, "model": {"beta": 2.0, "adversarial": adversarial}}
        )
        with pytest.raises(StudyError) as refused:
            check(older, newer, ["model.beta"], naming="study", next_step="Take it home.")
        assert str(refused.value).splitlines()[1:-2] == [
            "  config.model.adversarial: null → 4 settings",
            "  config.model.beta: 1.0 → 2.0  (accepted)",
            "  config.model.size: 8 → null",
            "  config.old: 2 settings → null",
            "  config.size: 1 → null",
            "  config.size: null → 2 settings",
        ]
        names = ["model.beta", "model.adversarial", "model.size", "old", "size"]
        assert f"'hydra.sweeper.allow_change=[{','.join(names)}]'" in str(refused.value)
        assert len(check(older, newer, names)) == 11
        with pytest.raises(StudyError, match=r"adversarial: null → 4 settings  \(accepted\)\n"):
            check(older, newer, ["model"])

    @pytest.mark.parametrize(("now", "there"), [({"model": {"beta": 2.0, "size": 8}}, False), ({"new": 1}, True)])
    def test_where_settings_came_or_went_it_may_be_another_version(self, now: dict[str, Any], there: bool) -> None:
        with pytest.raises(StudyError) as refused:
            check(contract(), contract(config=CONFIG | now), [], naming="study", next_step="Take it home.")
        said = "only the version that began the study can go on with it. It can be read as before. Take it home."
        assert str(refused.value).endswith(said) == there
        assert "begin another study with study=NEWNAME" in str(refused.value)

    def test_the_study_and_how_its_user_names_one_are_said_in_the_users_own_words(self) -> None:
        with pytest.raises(StudyError, match=r"^The study x \(in y\) was begun otherwise") as refused:
            check(contract(), contract(**self.NOW), [], "The study x (in y)", "name")
        assert "another study with name=NEWNAME" in str(refused.value)

    def test_names_that_hydra_would_misread_are_quoted(self) -> None:
        now = contract(config={**CONFIG, "odd key, really": 1})
        with pytest.raises(StudyError, match=r'\["odd key, really"\]'):
            check(contract(), now, [])

    @pytest.mark.parametrize(
        "params",
        [
            {"lr": "interval(0.0, 9.0)"},
            {"lr": None},
            {"loss": None},
            {"new": "choice(x, y)"},
            {"lr": None, "n": "range(1, 9)"},
        ],
    )
    def test_ranges_and_added_or_removed_parameters_can_be_accepted(self, params: dict[str, Any]) -> None:
        kept = {key: value for key, value in (PARAMS | params).items() if value}
        assert check(contract(), contract(kept), ["space"])

    def test_so_can_conditions(self) -> None:
        assert check(contract(), contract(conditions={"lr": "loss=a"}), ["space"])
        log = {"scale": "choice(log, lin)", "lr": "tag(log, interval(1, 2))"}
        assert check(contract(log), contract(log, conditions={"lr": "scale=log"}), ["lr"])
        assert check(
            contract(log), contract(log, conditions={"scale": "more=[1,2]"}, arguments=["more=1"]), ["scale", "more"]
        )

    def test_so_can_what_extends_the_space(self) -> None:
        before, now = ({"x": "choice(a)", "custom_search_space": f"{module}.extend"} for module in ("mine", "yours"))
        assert check(Contract(None, ["minimize"], before), Contract(None, ["minimize"], now), ["space"])

    @pytest.mark.parametrize(
        ("now", "why"),
        [
            ({"directions": ["maximize"]}, "directions of a study, for good"),
            ({"objective": ["kid"]}, "these objectives, for good"),
            ({"params": PARAMS | {"lr": "tag(log, interval(0.1, 0.2))"}}, "keeps the scale"),
            ({"params": PARAMS | {"lr": "range(1, 4)"}}, "keeps the kind"),
            ({"params": PARAMS | {"lr": "choice(0.1, 0.2)"}}, "keeps the kind"),
        ],
    )
    def test_what_optuna_cannot_change_is_refused_even_by_name(self, now: dict[str, Any], why: str) -> None:
        everything = ["objective", "directions", "space", "config", "lr", "loss"]
        with pytest.raises(StudyError, match=f"cannot be accepted: [^)]*{why}") as refused:
            check(contract(), contract(**now), everything)
        assert "allow_change=" not in str(refused.value)
        assert "hydra.sweeper.study_name=NEWNAME" in str(refused.value)

    SPACES = (
        "interval(0.1, 0.2)", "interval(0.1, 0.3)", "tag(log, interval(0.1, 0.2))", "range(1, 4)", "range(1, 9, 2)",
        "choice(a, b)", "choice(a, b, c)", "choice(b, a)", "choice(log)", "choice(a, log)",
    )  # fmt: skip

    @pytest.mark.parametrize("old", SPACES)
    @pytest.mark.parametrize("new", SPACES)
    def test_that_is_what_optuna_refuses_but_for_choices(self, old: str, new: str) -> None:
        spaces = [Space.parse({"x": text}, []).parameters["x"] for text in (old, new)]
        try:
            check_distribution_compatibility(*spaces)
            refused = False
        except ValueError:
            refused = True
        changes = compare(contract({"x": old}), contract({"x": new}))
        choices = any(map(has_other_choices, changes))
        assert choices == (refused and all(text.startswith("choice") for text in (old, new)))
        assert any(change.impossible for change in changes) == (refused and not choices)


def test_machines_are_kept_and_never_compared() -> None:
    begun, here = (Contract(None, ["minimize"], {}, machines=(name,)) for name in ("abacus", "here"))
    assert Contract.from_dict(begun.to_dict()) == begun
    assert Contract.from_dict({**begun.to_dict(), "machines": 5}).machines == ()
    assert compare(begun, here) == []


def test_a_key_is_the_same_with_another_prefix() -> None:
    before = Contract(None, ["minimize"], {"+x": "choice(1, 2)", "y": "int 1..3 when +x=1"}, {"seed": "3"})
    now = Contract(None, ["minimize"], {"x": "choice(1, 2)", "y": "int 1..3 when x=1"}, {"++seed": "3"})
    assert compare(before, now) == []
    changed = Contract(None, ["minimize"], {"++x": "choice(1, 2)", "y": "int 1..4 when x=1"}, {"++seed": "4"})
    assert [str(change) for change in compare(before, changed)] == [
        "space.y: int 1..3 when x=1 → int 1..4 when x=1", "fixed.seed: 3 → 4",
    ]  # fmt: skip
    assert len(check(before, changed, ["+seed", "y"])) == 2


@pytest.mark.security
@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("space", True), ("failures", True), ("model", True), ("model.beta", True), ("config.model", True),
        ("+lr", True), ("space.lr", True), ("facts.data", True), ("gone", True), ("seen", True), ("facts", True),
        ("nope", False), ("mod", False), ("model.bet", False), ("config.nope", False), ("", False), ("model.", False),
    ],
)  # fmt: skip
def test_a_name_of_allow_change_names_something(name: str, known: bool) -> None:
    before = contract(config={**CONFIG, "gone": 1})
    config = OmegaConf.create({**CONFIG, "ignored": "${nosuch}"})
    if known:
        require_known([name], [before, contract()], config, ["failures", "seen"])
    else:
        with pytest.raises(ConfigError, match="which is none"):
            require_known([name], [before, contract()], config, ["failures", "seen"])
