"""Whether jobs can be composed: options of groups, and keys, in a configuration of each kind there is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import open_dict

from catsweep.schema.kinds import Real, Several, Whole
from catsweep.schema.nodes import Branch, Value, Values
from steady.grammar import quoted
from steady.propose import checks
from steady.propose.checks import Enqueued
from steady.propose.space import Space

FILES = {
    "config.yaml": (
        "defaults: [{model: small}, {model@encoder: small}, {model/augment: none}, {optional extra: nothing}, "
        "{tags: [a]}, _self_]\nhydra: {searchpath: ['file://MORE']}\nx: 0.0\nn0: none\n"
    ),
    "strings.yaml": "".join(f"n{index}: none\n" for index in range(20)),
    "typed.yaml": (
        "defaults: [{kind: wide}, _self_]\nhydra: {searchpath: ['file://MORE']}\nrate: 0.1\nlike: ${kind.width}\n"
    ),
    "kind/wide.yaml": "defaults: [/kind_wide@_here_, _self_]\nwidth: 8\nlist: [1]\n",
    "kind/tall.yaml": "defaults: [/kind_tall@_here_, _self_]\nwidth: 8\nheight: 3\n",
    "model/small.yaml": "width: 8\n",
    "model/big.yaml": "width: 64\ndepth: 3\n",
    "model/deep/er.yaml": "width: 1\n",
    "model/augment/none.yaml": "flip: false\n",
    "model/augment/flip.yaml": "flip: true\n",
    "tags/a.yaml": "a: 1\n",
    "tags/b.yaml": "b: 1\n",
    "extra/some.yaml": "e: 1\n",
}
Problems = Callable[..., list[str]]


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("conf")
    more = tmp_path_factory.mktemp("more")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("MORE", str(more)))
    (more / "model").mkdir()
    (more / "model/elsewhere.yaml").write_text("width: 2\n")
    ConfigStore.instance().store(group="model", name="stored", node={"width": 16})
    width = Branch({"width": Value(Whole(1, 64)), "list": Values(Several(Whole(1), least=1))})
    ConfigStore.instance().store(name="kind_wide", node=width)
    ConfigStore.instance().store(
        name="kind_tall", node={"width": Value(Whole(1)), "height": Value(Real(0, beyond=True))}
    )
    with initialize_config_dir(str(folder)):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture
def problems(loader: Any) -> Problems:
    def found(params: dict[str, Any], *arguments: str, conditions: dict[str, str] | None = None) -> list[str]:
        space = Space.parse(params, list(arguments), conditions)
        return checks.JobComposer(space, compose("config", return_hydra_config=True), loader).problems()

    return found


@pytest.mark.parametrize(
    "params",
    [
        {"model": "choice(small, big)", "x": "interval(0.0, 1.0)"},
        {"model": "choice(stored, elsewhere, deep/er)", "model@encoder": "choice(small, big)"},
        {"model/augment": "choice(none, flip)", "tags": "choice([a], [a, b], [])"},
        {"extra": "choice(some, nothing)"},  # an optional group does without
        {"+model@another": "choice(small, big)", "+y": "choice(1, 2)", "++z": "interval(0, 1)"},
        {"model": "choice({width: 3}, {width: 4})"},  # values, no options
    ],
)
def test_what_hydra_composes_is_let_through(problems: Problems, params: dict[str, Any]) -> None:
    assert problems(params) == []


OF_MODEL = "in the group model; there are big, elsewhere, small, stored."


@pytest.mark.parametrize(
    ("params", "arguments", "said"),
    [
        ({"model": "choice(small, bgi)"}, (), f"model: there is no bgi {OF_MODEL} Did you mean big?"),
        ({"model@encoder": "choice(small, bgi)"}, (), f"model@encoder: there is no bgi {OF_MODEL}"),
        ({"+model@new": "choice(bgi, big)"}, (), f"model@new: there is no bgi {OF_MODEL}"),
        ({"model/augment": "choice(none, flap)"}, (), "model/augment: there is no flap in the group model/augment;"),
        ({"tags": "choice([a], [a, c])"}, (), "tags: there is no c in the group tags; there are a, b."),
        ({"x": "choice(1, 2)"}, ("model=bgi",), f"model: there is no bgi {OF_MODEL}"),
        ({"model": "choice(deep/err, big)"}, (), "model: there is no deep/err in the group model"),
    ],
)  # fmt: skip
def test_an_option_that_there_is_not_is_refused_with_those_that_there_are(
    problems: Problems, params: dict[str, Any], arguments: tuple[str, ...], said: str
) -> None:
    [found] = problems(params, *arguments)
    assert found.startswith(said)


def test_all_are_told_at_once(problems: Problems) -> None:
    assert len(problems({"model": "choice(small, bgi, smal)", "tags": "choice([c], [d])"})) == 4


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"n00": "choice(1, 2)"}, "n00 is searched, and no job can be composed with it: Could not override 'n00'."),
        ({"+x": "choice(1, 2)"}, "x is searched, and no job can be composed with it: Could not append to config. An"),
        (
            {"++model": "choice(small, big)"},
            "model is searched, and no job can be composed with it: force-add of config",
        ),
        ({"tags@new": "choice(a, b)"}, "tags@new is searched, and no job can be composed with it: Could not override"),
    ],
)
def test_a_key_that_no_job_has_is_refused_at_once(problems: Problems, params: dict[str, Any], said: str) -> None:
    [found] = problems({**params, "n0": "choice(1, 2)"})
    assert found.startswith(said)
    assert "\n" not in found


@pytest.fixture
def of_kinds(loader: Any) -> Problems:
    def found(params: dict[str, Any], *arguments: str) -> list[str]:
        space = Space.parse(params, list(arguments), {})
        return checks.JobComposer(space, compose("typed", return_hydra_config=True), loader).problems()

    return found


@pytest.mark.security
@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"kind.width": "choice(8, 0)"}, ["kind.width must be a whole number from 1 to 64; got 0."]),
        ({"kind.width": "choice(0, abc, 8, true)"}, ["got 0.", "got 'abc'.", "got True."]),
        ({"kind.width": "interval(1, 9.5)"}, ["got 1.0.", "got 9.5."]),
        ({"kind.width": "range(0, 100)"}, ["got 0.", *(f"got {width}." for width in range(65, 100))]),
        ({"kind.list": "choice([1], [], [0])"}, ["got [].", "got [0]."]),
        ({"kind": "choice(wide, tall)", "kind.height": "interval(-1, 1)"}, ["kind.height must be a number above 0"]),
        ({"kind": "choice(wide, tall)", "kind.width": "choice(3, -3)", "rate": "interval(0, 1)"}, ["got -3."]),
        ({"+kind.depth": "choice(a, -1)", "rate": "choice(x, -1)"}, []),  # of no kind
    ],
)
def test_a_value_that_no_job_takes_is_refused(of_kinds: Problems, params: dict[str, Any], said: list[str]) -> None:
    found = of_kinds(params)
    assert len(found) == len(said), found
    assert all(end in told for told, end in zip(found, said, strict=True)), found


@pytest.mark.security
def test_a_fixed_value_is_refused_in_one_line(of_kinds: Problems) -> None:
    [told] = of_kinds({"rate": "interval(0, 1)"}, "kind.width=0")
    assert "kind.width must be a whole number from 1 to 64; got 0." in told
    assert "\n" not in told
    assert of_kinds({"rate": "interval(0, 1)"}, "kind.width=${rate}") != []


def test_a_misspelled_key_is_told_with_the_one_that_is_meant(problems: Problems) -> None:
    [found] = problems({"model.widht": "choice(1, 2)"})
    assert found.endswith("Did you mean model.width?")


def test_a_key_that_some_jobs_have_is_let_be(problems: Problems) -> None:
    assert problems({"model": "choice(small, big)", "model.depth": "range(1, 3)"}) == []
    late = {"model": "choice(small, stored, elsewhere, deep/er, big)", "tags": "choice([a], [b])"}
    assert problems({**late, "model.depth": "range(1, 3)", "x": "choice(1, 2)"}) == []
    layered = {"+layers": "range(1, 6)", "model": "choice(small, big)", "model.depth": "range(1, 3)"}
    assert problems(layered, conditions={"model.depth": "model=big", "model": "layers=3"}) == []
    conditions = {"model.depth": "model=big"}
    assert problems({"model": "choice(small, big)", "model.depth": "range(1, 3)"}, conditions=conditions) == []
    wrong = problems(
        {"model": "choice(small, big)", "model.detph": "range(1, 3)"}, conditions={"model.detph": "model=big"}
    )
    assert len(wrong) == 1


SIGNS = st.sampled_from("'\"\\[]{},=:() ~+nul1.0e")
# Hydra's own signs for what is missing or stands elsewhere are no plain text.
TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), SIGNS), max_size=8).filter(
    lambda text: "${" not in text and text != "???"
)


@settings(max_examples=8)
@given(texts=st.lists(TEXTS, min_size=20, max_size=20))
def test_any_quoted_string_is_that_string_in_the_job(loader: Any, texts: list[str]) -> None:
    config = compose("strings", return_hydra_config=True)
    words = {f"n{index}": quoted(text) for index, text in enumerate(texts)}
    searched = Space.parse({name: f"choice({text}, 1)" for name, text in words.items()}, [])
    params = {name: searched.accepted(name, text) for name, text in zip(words, texts, strict=True)}
    fixed = Space.parse(None, [f"{name}={text}" for name, text in words.items()])
    for overrides in (searched.overrides(params), fixed.overrides({})):
        job = loader.load_sweep_config(config, list(overrides))
        assert [job[name] for name in words] == texts


def test_an_escaped_interpolation_is_a_string_too(loader: Any) -> None:
    space = Space.parse({"n0": r"choice('\${x}', b)"}, [])
    job = loader.load_sweep_config(compose("config", return_hydra_config=True), list(space.overrides({"n0": r"\${x}"})))
    assert job.n0 == "${x}"


# In the style of lightning-hydra-template: packages, experiments, optional groups, null options, lists of options.
TEMPLATE = {
    "train.yaml": (
        "# @package _global_\ndefaults:\n  - _self_\n  - data: mnist\n  - model: net\n  - callbacks: default\n"
        "  - logger: null\n  - trainer: cpu\n  - experiment: null\n  - hparams_search: null\n"
        "  - optional local: default\n  - debug: null\ntask_name: train\nseed: null\ntags: [dev]\n"
        "width: ${model.net.width}\n"
    ),
    "data/mnist.yaml": "batch_size: 8\nsplit: [10, 2]\n",
    "data/photos.yaml": "batch_size: 4\nsize: 64\n",
    "model/net.yaml": "defaults: [{net: small}, {optimizer@optim: adam}]\nlr: 0.1\nbeta: ${.lr}\n",
    "model/deep.yaml": "defaults: [net, {override net: big}, _self_]\nlr: 0.2\n",
    "model/net/small.yaml": "width: 8\n",
    "model/net/big.yaml": "width: 64\ndepth: 3\n",
    "model/optimizer/adam.yaml": "betas: [0.9, 0.99]\n",
    "model/optimizer/sgd.yaml": "momentum: 0.9\n",
    "callbacks/default.yaml": "defaults: [early, _self_]\nearly: {patience: 3}\n",
    "callbacks/early.yaml": "early: {monitor: loss}\n",
    "callbacks/none.yaml": "",
    "logger/csv.yaml": "csv: {dir: .}\n",
    "logger/wandb.yaml": "wandb: {project: p}\n",
    "logger/many.yaml": "defaults: [csv, wandb]\n",
    "trainer/cpu.yaml": "epochs: 2\n",
    "trainer/gpu.yaml": "defaults: [cpu]\naccelerator: gpu\n",
    "debug/fdr.yaml": "# @package _global_\ntrainer: {fast: true}\n",
    "experiment/one.yaml": (
        "# @package _global_\ndefaults:\n  - override /data: photos\n  - override /model: deep\n"
        "  - override /callbacks: none\ntags: [one]\nmodel: {lr: 0.3}\n"
    ),
    "experiment/two.yaml": "# @package _global_\ndefaults:\n  - override /trainer: gpu\nextra: {a: 1}\n",
}
VALID: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"model.lr": "tag(log, interval(0.001, 0.1))", "data.batch_size": "choice(4, 8)"}, ()),
    ({"experiment": "one, two, null"}, ()),
    ({"experiment": "choice(one, two)", "extra.a": "range(1, 4)"}, ()),
    ({"logger": "csv, wandb, many, null, [csv, wandb]"}, ()),
    ({"model": "choice(net, deep)", "model/net": "choice(small, big)", "model.net.width": "choice(4, 8)"}, ()),
    ({"model": "choice(net, deep)", "model.net.depth": "range(1, 4)"}, ()),
    ({"model/optimizer@model.optim": "choice(adam, sgd)", "model.optim.momentum": "interval(0, 1)"}, ()),
    ({"data": "choice(mnist, photos)", "data.size": "choice(32, 64)"}, ("experiment=two", "debug=fdr")),
    ({"tags": "choice([a], [a, b])", "data.split": "choice([8, 4], [9, 3])"}, ("logger=many", "seed=1")),
    ({"model.lr": "choice(0.1, 0.2)"}, ("experiment=one", "logger=[csv]", "~callbacks", "+new.key=1", "trainer=gpu")),
    ({"seed": "choice(1, 2)", "width": "choice('${model.net.width}', 7)"}, ("model.lr=${oc.env:NOT_THERE,0.1}",)),
    ({"model.beta": "choice('${.lr}', '${model.lr}', '${data.size}')"}, ()),
    ({"debug": "null, fdr", "++trainer.fast": "choice(true, false)", "callbacks": "choice(default, none)"}, ()),
    ({"trainer": "choice(cpu, '${oc.env:WHICH,gpu}')"}, ("callbacks.early.patience=9",)),
]  # fmt: skip


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Any]:
    for name, text in TEMPLATE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = GlobalHydra.instance().hydra  # of the fixture above
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path)):
        yield GlobalHydra.instance().config_loader()
    if before is not None:
        GlobalHydra.instance().initialize(before)


@pytest.mark.parametrize(("params", "arguments"), VALID)
def test_what_a_template_of_many_groups_allows_is_let_through(
    template: Any, params: dict[str, Any], arguments: tuple[str, ...]
) -> None:
    config = compose("train", list(arguments), return_hydra_config=True)
    composing = checks.JobComposer(Space.parse(params, list(arguments)), config, template)
    assert composing.possible
    assert composing.problems() == []
    assert next(composing.examples()) is not None


def test_an_enqueued_key_below_a_group_is_compared_with_what_its_job_has(loader: Any) -> None:
    space = Space.parse({"model": "choice(small, big)"}, [])
    config = compose("config", return_hydra_config=True)
    variants = checks.JobComposer(space, config, loader).variants

    def said(given: dict[str, Any]) -> list[str]:
        return Enqueued.read(given, space, config, variants).problems

    for sound in ({"model": "big", "model.width": 64, "model.depth": 3}, {"model": "small", "model.width": 8}):
        assert said({**sound, "encoder.width": 8, "x": 0.0}) == []
    assert said({"model": "big", "model.width": 8}) == ["model.width is not searched, and is 64 in every trial; got 8"]
    told = "model.width is not searched, and is 8 or 64, by what else is drawn; got 8"
    assert said({"model.width": 8}) == [told]
    assert said({"model": "small", "model.depth": 3})[0].startswith("there is no parameter model.depth")


def test_a_value_that_is_not_a_number_lets_hydra_compose_nothing(loader: Any) -> None:
    config = compose("config", ["+hydra.sweeper.other=[nan]"], return_hydra_config=True)
    assert not checks.JobComposer(Space.parse({"x": "choice(1, 2)"}, []), config, loader).possible


def test_an_override_that_names_what_only_a_job_has_is_let_through(loader: Any) -> None:
    config = compose("config", return_hydra_config=True)
    with open_dict(config.hydra.overrides):
        config.hydra.overrides.hydra.append("hydra.sweep.subdir=${hydra:job.num}")
    assert checks.JobComposer(Space.parse({"model": "choice(small, big)"}, []), config, loader).problems() == []
