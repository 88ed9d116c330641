"""Configurations of strangers: what is built of them, and what is not, whatever they name and say."""

import contextlib
import functools
import pkgutil
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tests.audit import watched

from catsweep import untrusted_config
from catsweep.configuration import CONF, losses_for
from catsweep.errors import CatsweepError, ConfigError
from catsweep.instantiation import trusting
from catsweep.models.discriminator import PlainDiscriminator
from catsweep.models.generator import Generator
from catsweep.untrusted_config import named, read, rebuild

pytestmark = pytest.mark.security

TINY = ("data.size=16", "depth.halvings=2", "width.channels=2", "width.max_channels=4")


@functools.cache
def composed(*overrides: str) -> dict[str, Any]:
    """What a run writes to its config.yaml."""
    with initialize_config_dir(str(CONF)):
        found = OmegaConf.to_container(hydra_compose("train", [*TINY, *overrides]), resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The configuration with another value at a dotted key."""
    first, _, rest = key.partition(".")
    return {**config, first: changed(config[first], rest, value) if rest else value}


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


# --- what is built


@pytest.mark.parametrize(
    "overrides",
    [
        *[(f"{group}={one}",) for group in ("activation", "block", "normalization", "optimizer", "schedule")
          for one in options(group)],
        *[(f"loss={one}",) for one in losses_for("reconstruction")],
        *[("model=dcgan", f"loss={one}") for one in losses_for("adversarial")],
        *[("model=dcgan", f"discriminator={one}") for one in options("discriminator")],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_a_run_writes_is_built_again(overrides: tuple[str, ...]) -> None:
    model = rebuild(composed(*overrides), "model")
    assert isinstance(model, Generator)
    assert model.decode(torch.zeros(2, model.latent_size)).shape == (2, 3, 16, 16)


def test_a_run_from_before_there_were_discriminators_to_choose_from_is_built_again() -> None:
    now = composed("model=dcgan", "discriminator.spectral_norm=true", "normalization=group")
    model = dict(now["model"])
    discriminator = model.pop("discriminator")
    before = {
        "discriminator_normalization": discriminator["normalization"],
        "discriminator_activation": discriminator["activation"],
        "spectral_norm": discriminator["spectral_norm"],
    }
    old, new = rebuild({"model": model | before}, "model"), rebuild(now, "model")
    assert isinstance(old.discriminator, PlainDiscriminator)
    # Its checkpoints fit by name and shape.
    new.load_state_dict(old.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(old.eval().discriminator(images), new.eval().discriminator(images))


def test_a_run_from_before_vaes_had_averages_or_discriminators_is_built_again() -> None:
    now = composed("model=vae")
    model = {key: node for key, node in now["model"].items() if key not in ("ema_decay", "adversarial")}
    old, new = rebuild({"model": model}, "model"), rebuild(now, "model")
    new.load_state_dict(old.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(old.eval().reconstruct(images), new.eval().reconstruct(images))


def test_classes_that_have_moved_are_found(tmp_path: Path) -> None:
    now = composed("data/augment=mild")
    text = OmegaConf.to_yaml(OmegaConf.create(now))
    before = text.replace("catsweep.data.operations", "catsweep.data." + "prepare.operations")
    assert before != text
    (tmp_path / "config.yaml").write_text(before)
    assert read(tmp_path / "config.yaml") == now
    for old, new in untrusted_config.MOVED.items():
        assert find_spec(new) is not None
        with pytest.raises(ModuleNotFoundError):
            find_spec(old + ".x")


def test_a_file_that_is_added_to_a_group_counts(tmp_path: Path) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf/activation/softplus.yaml").write_text("_target_: torch.nn.Softplus\n_partial_: true\n")
    (tmp_path / "conf/model/mine.yaml").write_text("# @package _global_\nmodel:\n  _target_: mypackage.Mine\n")
    before, after = named("model"), named("model", tmp_path / "conf")
    assert {*after.inner} - {*before.inner} == {"torch.nn.Softplus"}
    assert {*after.names} - {*before.names} == {"mypackage.Mine"}


def test_without_conf_nothing_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_config, "named", functools.partial(named, conf=tmp_path / "conf"))
    monkeypatch.setattr(untrusted_config, "CONF", tmp_path / "conf")
    with pytest.raises(ConfigError, match=r"conf/ does: nothing, for .*conf is not there"):
        rebuild(composed(), "model")


def test_places_are_ours() -> None:
    config = composed("metrics=inception")
    for key, value in {"weights": "/etc/shadow", "download": True, "cache_root": "/srv"}.items():
        config = changed(config, f"metrics.extractor.{key}", value)
    factory = rebuild_parts(changed(config, "metrics.cache_root", "/srv"))
    assert factory["cache_root"] == factory["extractor"]["cache_root"] == "data/statistics"
    assert (factory["extractor"]["download"], factory["extractor"]["weights"].split("/")[0]) == (False, "data")


def rebuild_parts(config: dict[str, Any]) -> Any:
    """What Hydra is given of a scorer: its own extractor would take a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hydra.utils, "instantiate", lambda node, **_: node)
        return rebuild(config, "metrics")


# --- what is not

LOAD_NAME = "pytorch_lightning.LightningModule.load_from_checkpoint"
LOAD = {"_target_": LOAD_NAME, "checkpoint_path": "x", "weights_only": False}
NOT_FOR_A_MODEL = [
    LOAD_NAME,
    "catsweep.models.vae.VAE.load_from_checkpoint",
    "catsweep.models.vae.VAE.__init__",
    "catsweep.models.vae.torch.load",
    "catsweep.models.vae",
    "catsweep.export.graphs.load_bundle",
    "catsweep.tracking.loggers.wandb_logger",
    "catsweep.data.datamodule.CatDataModule",
    "catsweep.metrics.scorer.Scorer",
    "catsweep.losses.reconstruction.mse",
    "torch.nn.ELU",
    "torch.load",
    "torch.hub.load",
    "os.system",
    "hydra.utils.get_method",
    "hydra.utils.instantiate",
    "functools.partial",
    "builtins.eval",
    "pytorch_lightning.Trainer",
    "",
    ".",
    "catsweep.models.vae.VAE ",
    "catsweep.models.vae:VAE",
    " catsweep.models.vae.VAE",
    "\u0441atsweep.models.vae.VAE",  # a Cyrillic letter that looks like c
    None,
    3,
    ["catsweep.models.vae.VAE"],
    {"_target_": "catsweep.models.vae.VAE"},
]  # fmt: skip


def test_what_is_refused_below_is_there() -> None:
    names = [
        name for name in NOT_FOR_A_MODEL if isinstance(name, str) and re.fullmatch(r"(catsweep|torch)[\w.]+", name)
    ]
    assert len(names) > 10
    assert all(pkgutil.resolve_name(name) for name in names)


@pytest.mark.parametrize("name", NOT_FOR_A_MODEL, ids=repr)
@pytest.mark.parametrize("key", ["model._target_", "model.activation._target_", "model.optimizer._target_"])
def test_a_model_is_made_of_what_conf_names(name: Any, key: str) -> None:
    if (name == "torch.nn.ELU" and key != "model._target_") or name == "catsweep.losses.reconstruction.mse":
        key = "model._target_"
    with watched() as done, pytest.raises(ConfigError, match=r"names .*conf/ does"):
        rebuild(changed(composed(), key, name), "model")
    assert not done


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("data", "catsweep.models.vae.VAE"),
        ("data", "catsweep.data.datamodule.PreparedCats"),
        ("metrics", "catsweep.models.vae.VAE"),
        ("metrics", "catsweep.metrics.extractors.EfficientNetLite0"),
        ("metrics", "catsweep.metrics.extractors.Extractor"),
    ],
)
def test_each_node_has_names_of_its_own(role: str, name: str) -> None:
    with pytest.raises(ConfigError, match="names"):
        rebuild(changed(composed(), f"{role}._target_", name), role)


@pytest.mark.parametrize("reader", ["Photos", "KaggleCats"])
def test_photos_of_a_stranger_are_not_read(reader: str) -> None:
    node = {"_target_": f"catsweep.data.sources.{reader}", "folder": "/etc"}
    with pytest.raises(ConfigError, match=rf"data\.reader names .*{reader}.*trust="):
        rebuild(changed(composed(), "data.reader", node), "data")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model._args_", [1], "key '_args_'"),
        ("model._recursive_", False, "key '_recursive_'"),
        ("model._isolate_", True, "key '_isolate_'"),
        ("model._execution_whitelist_", ["os.*"], "key '_execution_whitelist_'"),
        ("model.block._args_", [1], "key '_args_'"),
        ("model._convert_", "evil", "_convert_"),
        ("model._partial_", "yes", "_partial_"),
        ("model._partial_", True, "without _partial_"),
        ("model.reconstruction_loss._partial_", False, "at once"),
        ("model.activation._partial_", False, "at once"),
        ("model.latent_size", "/etc/passwd", "a word"),
        ("model.latent_size", "http://127.0.0.1/x", "a word"),
        ("model.latent_size", "..", "a word"),
        ("model.latent_size", "~", "a word"),
        ("model.latent_size", "a\nb", "a word"),
        ("model.latent_size", "x" * 65, "a word"),
        ("model.latent_size", ["a/b"], "a word"),
        ("model.latent_size", {"a": {"b": "c:d"}}, "a word"),
        ("model.latent_size", LOAD, "names"),
        ("model.latent_size", [[{"a": LOAD}]], "names"),
        ("model.latent_size", 10**30, "cannot be built"),
        ("model.latent_size", b"bytes", "type bytes"),
        ("model.latent_size", {3: 4}, "key 3"),
        ("model", None, "says what its model is"),
        ("model", [], "says what its model is"),
        ("model", {}, "says what its model is"),
    ],
    ids=repr,
)
def test_arguments_are_numbers_and_words(key: str, value: Any, said: str) -> None:
    with watched() as done, pytest.raises(ConfigError, match=said):
        rebuild(changed(composed(), key, value), "model")
    assert not done


def test_nesting_without_end_is_one_message() -> None:
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(ConfigError, match="RecursionError"):
        rebuild(changed(composed(), "model.latent_size", deep), "model")


@pytest.mark.parametrize(
    "text",
    [
        "model: ${oc.env:HOME}",
        "a: ${oc.env:HOME}",
        "a: '${oc.decode:1}'",
        "a: [{b: 'x${run_folder:true}y'}]",
        "'${oc.env:HOME}': 1",
        "a: ${oc.create:{}}",
        "a: \\${x}",
        "a: ${b}\nb: 1",
        "- 1",
        "3",
        "a: [",
        "a: !!python/object/apply:os.system ['exit 3']",
        "a: !!python/name:os.system",
        "a: 1\na: 2",
        "\0",
        "[" * 3000,
        "a: *nothing",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_file_is_plain_data(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(text)
    secret = "what only this machine knows"
    monkeypatch.setenv("HOME", secret)
    with pytest.raises(ConfigError, match=r"config\.yaml") as told:
        read(tmp_path / "config.yaml")
    assert secret not in str(told.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        read(tmp_path / "config.yaml")


# --- trust is the command line's


@pytest.fixture
def mypackage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage/__init__.py").write_text("")
    (tmp_path / "mypackage/models.py").write_text(
        "import os, torch\nfrom catsweep.models.vae import VAE\n\nclass Mine(VAE):\n"
        "    def __init__(self, *, where, **others):\n"
        "        super().__init__(**others)\n        self.where = where\n\n"
        "    @classmethod\n    def made(cls, **_):\n        raise SystemExit(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


MINE = "mypackage.models.Mine"


def test_a_package_that_python_does_not_find_is_told_with_the_remedy() -> None:
    config = changed(composed(), "model._target_", "nopackageofmine.models.Mine")
    with trusting(["nopackageofmine.*"]), pytest.raises(ConfigError, match=r"cannot be found.*PYTHONPATH=\. "):
        rebuild(config, "model")


def test_a_refusal_begins_with_the_remedy_and_offers_ten_names_at_most() -> None:
    with pytest.raises(ConfigError) as told:
        rebuild(changed(composed(), "model.optimizer._target_", MINE), "model")
    said = str(told.value)
    assert re.search(
        r"names 'mypackage.models.Mine'. If it .*'trust=\[mypackage\.\*\]'\. Else .* and \d+ more\.$", said
    )
    assert said.partition("what conf/ does: ")[2].count(", ") == 9


@pytest.mark.usefixtures("mypackage")
@pytest.mark.parametrize("trust", ["mypackage.*", "mypackage.models.*", MINE])
def test_ones_own_class_takes_what_it_likes(trust: str) -> None:
    config = changed(changed(composed(), "model._target_", MINE), "model.where", "/srv/cats")
    with pytest.raises(ConfigError, match=r"names 'mypackage.models.Mine'.*trust="):
        rebuild({**config, "trust": [trust]}, "model")
    with trusting([trust]):
        assert rebuild(config, "model").where == "/srv/cats"


@pytest.mark.usefixtures("mypackage")
@pytest.mark.parametrize(
    "name",
    [
        "mypackage.models.Mine.made",
        "mypackage.models.Mine.load_from_checkpoint",
        "mypackage.models.torch.load",
        "mypackage.models.os.system",
        "mypackage.models.VAE.load_from_checkpoint",
        "mypackage.models.nothing",
        "mypackage.models",
        "mypackage2.models.Mine",
        LOAD_NAME,
    ],
)
def test_trust_in_a_package_is_none_in_methods_and_in_what_it_imports(name: str) -> None:
    with trusting(["mypackage.*"]), watched() as done, pytest.raises(ConfigError):
        rebuild({"model": {**LOAD, "_target_": name}}, "model")
    assert not [line for line in done if "mypackage" not in line]


def test_trust_ends_with_its_block() -> None:
    config = changed(composed(), "model.activation", {"_target_": "torch.nn.Softplus", "_partial_": True})
    with trusting(["torch.nn.Softplus"]):
        rebuild(config, "model")
    with pytest.raises(ConfigError):
        rebuild(config, "model")


# --- nothing that can be reached loads, opens, connects or executes


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with things in it that have the names that are tried."""
    folder = tmp_path_factory.mktemp("elsewhere")
    torch.save({"state_dict": {}}, folder / "evil")
    (folder / "https").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for overrides in ((), ("model=dcgan", "loss=bce")):  # what is imported late is
            rebuild(composed(*overrides), "model")
        for name in {*named("model").inner}:
            pkgutil.resolve_name(name)
        yield folder


WORDS = ["evil", "https", "cuda", "os", "", "-", "mse", "float16", "same", "True", "__class__", "__reduce__"]
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.sampled_from([0.0, -1.5, float("nan"), float("inf")]),
              st.sampled_from([*WORDS, "/etc/passwd", "http://127.0.0.1:9/x", "${oc.env:HOME}", "../evil", "evil:x"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WORDS, "a"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
PARAMETERS = [
    "lr", "inplace", "alpha", "device", "dtype", "weights", "source", "cache_root", "root", "download", "path",
    "features", "network", "prediction", "target", "params", "policy", "group_size", "channels", "args", "self",
    "warmup", "share", "affine", "num_features", "reader", "n", "seed", "size", "architecture", "train",
]  # fmt: skip


@st.composite
def nodes(draw: st.DrawFn, depth: int = 2) -> Any:
    """A node with an allowed name, or one that is not, and arguments of any kind."""
    if depth == 0 or draw(st.booleans()):
        return draw(VALUES)
    names = sorted({*named("model").inner, *named("model").names, "torch.load", LOAD_NAME})
    node: dict[str, Any] = {"_target_": draw(st.sampled_from(names))}
    if draw(st.booleans()):
        node["_partial_"] = draw(st.sampled_from([True, True, False]))
    return node | draw(st.dictionaries(st.sampled_from(PARAMETERS), nodes(depth=depth - 1), max_size=3))


MODELS = [(), ("model=dcgan", "loss=bce"), ("model=dcgan", "discriminator=projected")]


@given(data=st.data())
@settings(max_examples=100)
def test_whatever_is_reached_only_computes(elsewhere: Path, data: st.DataObject) -> None:
    before = sorted(elsewhere.rglob("*"))
    node = dict(composed(*data.draw(st.sampled_from(MODELS)))["model"])
    for key in data.draw(st.lists(st.sampled_from(sorted(node)), min_size=1, max_size=3, unique=True)):
        node[key] = data.draw(nodes())
    model = None
    with watched() as done, contextlib.suppress(CatsweepError):
        model = rebuild({"model": node}, "model")
    assert done == []
    assert model is None or isinstance(model, pl.LightningModule) or callable(model)
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.parametrize("name", sorted({*named("model").inner, *named("model").names}))
@pytest.mark.usefixtures("elsewhere")
def test_each_name_only_computes_whatever_it_is_given(name: str) -> None:
    """Every allowed name, at every place of a model, as it is and with arguments that it does not want."""
    config = composed("model=dcgan", "loss=bce") if "adversarial" in name else composed()
    for key in [key for key, value in config["model"].items() if isinstance(value, dict)]:
        for partial in (True, False):
            for arguments in ({}, {"a": "evil", "device": "evil", "network": [1], "policy": {"evil": 1}}):
                node = {"_target_": name, "_partial_": partial, **arguments}
                with watched() as done, contextlib.suppress(CatsweepError):
                    rebuild(changed(config, f"model.{key}", node), "model")
                assert done == []


@pytest.mark.parametrize(
    ("role", "key", "value"),
    [
        ("metrics", "cache_root", "evil"),
        ("metrics", "extractor.cache_root", "https"),
        ("metrics", "extractor.weights", "evil"),
        ("metrics", "extractor.backend", "evil"),
        ("data", "root", "evil"),
        ("data", "source", "evil"),
        ("data", "reader.folder", "evil"),
        ("data", "download", True),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_scorers_and_data_read_what_is_theirs(role: str, key: str, value: Any) -> None:
    """The extractor's weights are in its package; caches and photos are read later, where conf/ says."""
    config = changed(composed(), "data.augment", None)
    with watched() as done, contextlib.suppress(CatsweepError):
        rebuild(changed(config, f"{role}.{key}", value), role)
    assert done == []


@pytest.mark.parametrize("architecture", [None, {}], ids=repr)
@pytest.mark.usefixtures("elsewhere")
def test_a_pretrained_model_without_its_architecture_is_not_looked_for(architecture: Any) -> None:
    config = changed(composed("model=vae_pretrained"), "model.source", "somebody/a-vae")
    with watched() as done, pytest.raises(CatsweepError):
        rebuild(changed(config, "model.architecture", architecture), "model")
    assert done == []


@pytest.mark.security
@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:pathlib.WindowsPath [x]", "!!bool zz", "!!int ''", "!!float ''", "!!timestamp zz"],
)
def test_a_tag_that_yaml_cannot_construct_is_told(tmp_path: Path, value: str) -> None:
    (tmp_path / "config.yaml").write_text(f"seed: {value}\n")
    with pytest.raises(ConfigError, match="Expected the configuration of a run"):
        read(tmp_path / "config.yaml")
