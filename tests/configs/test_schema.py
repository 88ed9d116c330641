"""Types and ranges of every key that we ship: Hydra refuses what is none, with the key's name, and lets the rest be."""

import copy
import itertools
import math
import pickle
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import Container, DictConfig, Node, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from catsweep import runs, schema
from catsweep.schema import keys
from catsweep.schema.kinds import SEEDS
from catsweep.schema.nodes import Branch, Value, Values

pytestmark = pytest.mark.security
CONF = Path(__file__).resolve().parents[2] / "conf"
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml"))
OF_PHOTOS = ("photos", "hub_cats", "kaggle_cats", "ready")
REMOVERS = ("grabcut", "onnx", "rembg")
BUILT = ("_target_", "_partial_")  # of options that hold nothing else


@pytest.fixture(autouse=True)
def _hydra_as_it_was() -> Iterator[None]:
    before = HydraConfig.instance().cfg
    runs.register()  # as src/train.py does
    yield
    HydraConfig.instance().cfg = before


def composed(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF)):
        cfg = hydra.compose(command, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@cache
def ours(command: str, *overrides: str) -> DictConfig:
    return composed(command, *overrides)


def everything() -> list[tuple[str, ...]]:
    """Command and overrides of configurations that have, together, every option of every group."""
    several = [("train", "model=dcgan", "hparams_search=dcgan_optuna"), ("train", "model=vae_pretrained")]
    several += [(command,) for command in COMMANDS]
    several += [
        ("train", f"data={option}", "data/augment=mild") for option in ("photos", "hub_cats", "kaggle_cats", "ready")
    ]
    several += [("train", f"optimizer={option}") for option in ("adamw", "lion", "radam", "rmsprop", "sgd")]
    several += [
        ("train", "loss=perceptual", "schedule=cosine", "trainer=ddp", "metrics=inception", "normalization=group"),
        ("train", "model=dcgan", "loss=wgan_gp", "schedule=linear", "trainer=gpu", "logger=csv", "activation=elu"),
    ]
    several += [
        ("prepare", "background=remove", f"background/remover={option}") for option in ("grabcut", "onnx", "rembg")
    ]
    return several


def leaves(node: Any) -> Iterator[Node]:
    """All nodes of a configuration that hold a value, a list, or an interpolation."""
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        for key in node:
            yield from leaves(node._get_node(key))
    else:
        yield node


def keys_of(cfg: DictConfig) -> list[str]:
    return [leaf._get_full_key(None) for leaf in leaves(cfg) if isinstance(leaf, Value | Values)]


TYPED = [(words, key) for words in everything() for key in keys_of(ours(*words))]
EVERY = sorted({key: words for words, key in reversed(TYPED)}.items())


def refusal(words: tuple[str, ...], key: str, value: Any) -> str | None:
    """What is said when a key is given a value, as Hydra gives it; None if nothing is wrong with it."""
    cfg = copy.deepcopy(ours(*words))
    try:
        OmegaConf.update(cfg, key, value, merge=True)
    except OmegaConfBaseException as error:
        return str(error)
    return "\n".join(schema.faults(cfg)) or None


@pytest.mark.parametrize("words", everything(), ids=" ".join)
def test_every_key_that_we_ship_has_a_kind(words: tuple[str, ...]) -> None:
    cfg = ours(*words)
    assert schema.faults(cfg) == []
    without = [leaf._get_full_key(None) for leaf in leaves(cfg) if not isinstance(leaf, Value | Values | Branch)]
    assert [key for key in without if not key.endswith(BUILT)] == [k for k in without if k.endswith("data.augment")]
    assert "???" not in OmegaConf.to_yaml(cfg)


def test_every_schema_is_of_a_file() -> None:
    named = {line for file in CONF.rglob("*.yaml") for line in file.read_text(encoding="utf-8").split()}
    for name in {**keys.COMMANDS, **keys.GROUPS}:
        assert any(f"schema_{name}" in word for word in named), name


def test_defaults_are_those_of_the_files() -> None:
    """A schema has no values of its own, changes none, and not the order."""
    for file in CONF.glob("depth/*.yaml"):
        written = {key: value for key, value in OmegaConf.load(file).items() if key != "defaults"}
        assert list(composed("train", f"depth={file.stem}").depth.items()) == list(written.items())
    cfg = ours("train")
    assert list(cfg)[:4] == ["seed", "epochs", "minutes", "eval_every"]
    assert list(cfg.optimizer) == ["_target_", "_partial_", "_convert_", "lr", "betas", "fused"]
    assert type(cfg.patience) is int
    assert cfg.minutes is None


REFUSED = [
    ("data.reader.n", "abc", "a whole number from 1"), ("data.size", "abc", "a whole number from 1"),
    ("data.size", 10**9, "a whole number from 1 to 8192"), ("data.size", None, None), ("data.size", [64], "a whole"),
    ("data.size", {"a": 1}, "a whole number"), ("data.size", True, "a whole number"), ("data.size", 64.0, "a whole"),
    ("data.val_fraction", 1, "a number of at least 0 and below 1"), ("data.flip", 1, "true or false"),
    ("data.reader", "abc", "a node with keys"), ("data.root", "", "text"), ("data.root", ["a"], "text"),
    ("seed", -1, f"a whole number from 0 to {SEEDS}"), ("seed", SEEDS + 1, "a whole"), ("seed", "1e3", "a whole"),
    ("seed", "abc", "a whole"), ("seed", math.nan, "a whole"), ("seed", None, None), ("seed", "", "a whole"),
    ("epochs", 0, "a whole number from 1 up"), ("epochs", True, "a whole"), ("epochs", 10**30, "a whole"),
    ("epochs", 1e3, "a whole"), ("epochs", " ", "a whole"), ("eval_every", 1.5, "a whole"), ("patience", 0, "a whole"),
    ("minutes", 0, "a number above 0"), ("minutes", -0.0, "a number above 0"), ("minutes", math.inf, "a number above"),
    ("minutes", math.nan, "a number above"), ("minutes", True, "a number above"), ("minutes", "long", "a number"),
    ("optimizer.lr", -1, "a number of at least 0"), ("optimizer.lr", "abc", "a number of at least 0"),
    ("optimizer.lr", 10**400, "a number of at least 0"), ("optimizer.betas", [0.9], "a list of 2"),
    ("optimizer.betas", [0.9, 1], "below 1"), ("optimizer.betas", "abc", "a list of 2"),
    ("model.latent_size", 0, "a whole number from 1"), ("model.beta", "abc", "a number of at least 0"),
    ("model.beta", -math.inf, "a number of at least 0"), ("model.optimizer", "abc", "a node with keys"),
    ("model.reconstruction_loss", 3, "a node with keys"), ("trainer.devices", 0, "a whole number from 1"),
    ("trainer.devices", [], "a list of at least 1"), ("trainer.threads", -3, "a whole number from 1"),
    ("trainer.precision", 99, "auto, 16, 16-mixed"), ("trainer.accelerator", "gpus", "auto, cpu, gpu, cuda or mps"),
    ("metrics.samples", "abc", "a whole number from 2 up"), ("metrics.reference", "some", "all, train or val"),
    ("objective", [], "a list of at least 1"), ("objective", "val/fid", "a list"), ("trust", "mylab.*", "a list"),
    ("rungs", [0.5, 0.5], "a list, rising"), ("rungs", [0, 0.5], "above 0 and below 1"), ("rungs", None, None),
    ("rungs", {"a": 1}, None), ("trial.number", "x", "a whole number"), ("trial", 3, "a node with keys"),
    ("depth.halvings", 0, "a whole number from 1"), ("width.channels", 2.5, "a whole"),
    ("logger.watch", "all of it", "all"), ("model.adversarial.discriminator.min_side", 513, "1 to 512, or null"),
    ("recipe.lr", -0.1, "a number of at least 0"), ("resume", [1], "true or false, or text"), ("study", ["a"], "text"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "must"), REFUSED)
def test_a_value_of_another_kind_is_refused_with_its_key(key: str, value: Any, must: str | None) -> None:
    told = refusal(("train",), key, value)
    assert told is not None
    assert key in told
    if must is not None:
        assert f"{key} must be " in told
        assert must in told
        assert "; got " in told


OF_OTHERS = [
    ("generate", "n", 0), ("generate", "truncation", 1.1), ("generate", "attribute.strength", math.inf),
    ("generate", "scale", 17), ("generate", "fps", 0), ("generate", "overwrite", "yes"),
    ("generate", "interpolate", 1), ("generate", "attribute.measure", "beauty"),
    ("generate", "checkpoint", "worst"), ("generate", "attribute.draws", 3),
    ("export", "draws", 1), ("export", "draws", -1), ("export", "push", "ftp"), ("export", "private", "no"),
    ("evaluate", "seed", -1), ("evaluate", "out", "scores.csv"), ("best_model", "select", None),
    ("report", "plotly", 2),
    ("demo", "port", 99999), ("demo", "port", -1), ("demo", "port", "http"), ("prepare", "verification.port", 65536),
    ("prepare", "size", "abc"), ("prepare", "verify", "later"), ("prepare", "stages", "zoom"),
    ("prepare", "stages", []),
    ("prepare", "manifest", "xlsx"), ("prepare", "val_fraction", 1), ("prepare", "zoom.border", "mirror"),
    ("prepare", "zoom.colour", [1, 2]), ("prepare", "zoom.colour", [1, 2, 256]), ("prepare", "augment.copies", 0),
    ("prepare", "pipeline", "abc"), ("prepare", "pipeline", ["abc"]), ("prepare", "duplicates.threshold", 0),
    ("prepare", "augment.operations.flip.probability", 2), ("prepare", "formats.jpg.suffix", ".gif"),
    ("prepare", "augment.operations.contrast.range", [1]), ("prepare", "formats.tar.images", 0),
]  # fmt: skip


@pytest.mark.parametrize(("command", "key", "value"), OF_OTHERS)
def test_so_it_is_for_every_command(command: str, key: str, value: Any) -> None:
    told = refusal((command,), key, value)
    assert told is not None
    assert key in told


@pytest.mark.parametrize(
    ("command", "override"),
    [
        ("train", "data.size=abc"), ("train", "++seed=-1"), ("train", "rungs=[0.1,abc]"), ("prepare", "size=abc"),
        ("train", "data={size: 0}"), ("demo", "port=99999"), ("generate", "n=null"), ("train", "depth.halvings=[3]"),
    ],
)  # fmt: skip
def test_hydra_itself_refuses(command: str, override: str) -> None:
    with pytest.raises(HydraException, match="Error merging override") as refused:
        composed(command, override)
    key = override.lstrip("+").partition("=")[0]
    assert f"full_key: {key}" in str(refused.value.__cause__)
    assert len(str(refused.value.__cause__).splitlines()) <= 4


TAKEN = [
    ("data.size", "5", 5), ("seed", 0, 0), ("seed", SEEDS, SEEDS), ("minutes", 2, 2), ("minutes", 0.5, 0.5),
    ("minutes", None, None), ("minutes", "2", 2.0), ("patience", None, None), ("trainer.devices", "auto", "auto"),
    ("trainer.devices", [0, 1], [0, 1]), ("trainer.precision", 32, "32"), ("rungs", [], []), ("study", 5, "5"),
    ("resume", True, True), ("resume", "outputs/runs/a", "outputs/runs/a"), ("trust", None, None),
    ("trust", ["a.*"], ["a.*"]),
    ("data.source", 2024, "2024"), ("logger.tags", ["a", 1], ["a", "1"]), ("model.beta", 0, 0),
    ("optimizer.betas", [0, 0.5], [0, 0.5]),
    ("data.size", "${width.channels}", 32), ("optimizer.betas", ["${data.val_fraction}", 0.5], [0.1, 0.5]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "kept"), TAKEN)
def test_a_value_of_its_kind_is_kept_as_it_is_written(key: str, value: Any, kept: Any) -> None:
    assert refusal(("train",), key, value) is None
    cfg = copy.deepcopy(ours("train"))
    OmegaConf.update(cfg, key, value, merge=True)
    found = OmegaConf.select(cfg, key)
    found = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data.size", "${minutes}", r"data\.size must be a whole number .*got None"),
        ("data.size", "???", r"data\.size must be a whole number .*got \?\?\? \(nothing\)"),
        ("model.optimizer", "${data.size}", r"model\.optimizer must be a node with keys of its own; got 64"),
        ("optimizer.betas", "${rungs}", r"optimizer\.betas must be a list of 2.*got \[0\.1, 0\.25, 0\.5\]"),
        ("optimizer.betas", ["${data.size}", 0.5], r"optimizer\.betas must be a list of 2.*got \[64, 0\.5\]"),
        ("loss.reconstruction", "abc", r"model\.reconstruction_loss must be a node with keys of its own; got 'abc'"),
    ],
)  # fmt: skip
def test_what_comes_by_interpolation_is_told_before_the_command_begins(key: str, value: Any, said: str) -> None:
    cfg = copy.deepcopy(ours("train"))
    OmegaConf.update(cfg, key, value, merge=True)
    told = "\n".join(schema.faults(cfg))
    assert re.search(said, told), told


def test_all_that_comes_by_interpolation_is_told_at_once() -> None:
    cfg = copy.deepcopy(ours("train"))
    for key in ("seed", "epochs", "data.batch_size"):
        OmegaConf.update(cfg, key, "${minutes}")
    assert len(schema.faults(cfg)) == 3  # data.seed is the seed


def test_an_interpolation_that_leads_nowhere_is_told_when_nothing_can_make_it_lead_anywhere() -> None:
    cfg = copy.deepcopy(ours("train"))
    OmegaConf.update(cfg, "data.size", "${nope}")
    assert schema.faults(cfg) == []
    [told] = schema.faults(cfg, final=True)
    assert re.search(r"^data\.size: .*'nope' not found", told)


def test_options_of_the_users_own_hold_what_they_like(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_text(
        "# @package _global_\nmodel: {_target_: mylab.Net, latent_size: none, of_mine: {a: [1]}}\n"
        "recipe: {lr: 1, betas: [0, 0]}\n"
    )
    (tmp_path / "model" / "like_ours.yaml").write_text(
        "# @package _global_\ndefaults: [vae, _self_]\nmodel: {_target_: mylab.VAE, of_mine: {a: [1]}}\n"
    )
    path = f"hydra.searchpath=[file://{tmp_path}]"
    cfg = composed("train", path, "model=own", "model.latent_size=-3")
    assert (cfg.model.latent_size, cfg.model.of_mine.a, schema.faults(cfg)) == (-3, [1], [])
    cfg = composed("train", path, "model=like_ours", "model.of_mine.a=[2]", "+model.other=abc")
    assert (cfg.model._target_, cfg.model.of_mine.a, cfg.model.other) == ("mylab.VAE", [2], "abc")
    with pytest.raises(HydraException):
        composed("train", path, "model=like_ours", "model.latent_size=0")


@pytest.mark.parametrize("way", [copy.deepcopy, lambda cfg: pickle.loads(pickle.dumps(cfg)), copy.copy])
def test_kinds_stay_with_a_configuration_that_is_copied_or_sent(way: Callable[[DictConfig], DictConfig]) -> None:
    before = ours("train")
    cfg = way(before)
    assert cfg == before
    assert keys_of(cfg) == keys_of(before)
    for key, value in (("seed", "x"), ("rungs", [2]), ("trial", 1), ("optimizer.betas", [2, 3])):
        with pytest.raises(OmegaConfBaseException):
            OmegaConf.update(way(before), key, value)


def test_a_list_is_checked_when_it_grows() -> None:
    cfg = copy.deepcopy(ours("train"))
    cfg.rungs.append(0.9)
    with pytest.raises(OmegaConfBaseException):
        cfg.rungs.append(0.8)


words = st.text("ab0.-_/ \n\0é", max_size=6)
numbers = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 10**30, -(10**400), 1e308, 5e-324, 2**63])
scalars = st.one_of(
    st.none(), st.booleans(), numbers, words, numbers.map(str), st.sampled_from(["???", "null", "auto", "1_0", " 5 "])
)
values = (
    scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.sampled_from(["a", "_target_"]), scalars, max_size=2)
)


@given(st.sampled_from(EVERY), values)
def test_whatever_a_key_is_given_it_is_taken_or_refused_by_its_name(where: tuple[str, Any], value: Any) -> None:
    key, configuration = where
    told = refusal(configuration, key, value)
    if told is not None:
        assert key in told
        assert len(told) < 3000
        return
    cfg = copy.deepcopy(ours(*configuration))
    OmegaConf.update(cfg, key, value, merge=True)
    found = OmegaConf.select(cfg, key)
    kept = OmegaConf.to_container(found) if isinstance(found, Container) else found
    for one in kept if isinstance(kept, list) else [kept]:
        assert not (isinstance(one, float) and not math.isfinite(one))
        assert not (isinstance(one, str) and "\0" in one)


def test_there_are_as_many_keys_as_there_should_be() -> None:
    assert len(EVERY) > 190
    assert len({key for key, _ in itertools.islice(EVERY, 10_000)}) == len(EVERY)


def test_a_constraint_on_what_no_trial_notes_is_refused_by_name_and_of_another_app_is_not() -> None:
    with initialize_config_dir(str(CONF)):
        line = ["hydra/sweeper=steady", 'hydra.sweeper.constraints={model/weigths: "<= 2e6", generate/ms: "<= 20"}']
        cfg = hydra.compose("train", line, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    [said] = [line for line in schema.faults(cfg) if "constraints" in line]
    assert "no trial notes model/weigths" in said
    assert said.endswith("Did you mean model/weights?")
    other = OmegaConf.create({"hydra": {"sweeper": {"constraints": {"mine": "<= 2e6"}}}})
    assert schema.faults(other) == []
