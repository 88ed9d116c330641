import copy
from contextlib import nullcontext

import pytest
from hydra.core.hydra_config import HydraConfig
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from catsweep.configuration import (
    check,
    check_groups,
    check_judge,
    check_loss,
    check_model,
    check_photos,
    losses_for,
)
from catsweep.errors import ConfigError
from steady.study.contract import differences

names = st.text("abc", min_size=1, max_size=3)
scalars = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4))
configurations = st.dictionaries(
    names,
    st.recursive(
        scalars | st.lists(scalars, max_size=3),
        lambda nodes: st.dictionaries(names, nodes, min_size=1, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def configuration(target="catsweep.models.vae.VAE", kind="reconstruction", loss=("reconstruction",), **values):
    model = {"_target_": target, f"{kind}_loss": f"${{loss.{kind}}}"}
    budget = {"budget_unit": None, "minutes": None, "samples": None}
    return OmegaConf.create({"model": model, "loss": {key: {"_target_": "x.y"} for key in loss}, **budget, **values})


@pytest.fixture
def conf(tmp_path):
    (tmp_path / "loss").mkdir()
    for name, text in {
        "mse": "reconstruction: 1",
        "bce": "reconstruction: 1\nadversarial: 1",
        "wgan": "adversarial: 1",
    }.items():
        (tmp_path / "loss" / f"{name}.yaml").write_text(text)
    return tmp_path


BATCH_NORM = {"_target_": "torch.nn.BatchNorm2d", "_partial_": True}


@pytest.mark.parametrize(
    ("size", "halvings", "batch", "photos", "message"),
    [
        (32, 5, 1, None, r"single cell .* over data\.batch_size=1\. Set data\.batch_size=2 or more, or .*halvings=4"),
        (64, 6, 1, 900, r"over data\.batch_size=1\. Set"), (16, 4, 64, 1, r"1 photo that there is .*\. Add photos, or"),
        (2, 1, 1, None, r"or normalization=group\.$"),
        (64, 5, 1, None, None), (32, 5, 2, 2, None), (32, 5, 64, None, None), (64, 5, 64, 1, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", ["catsweep.models.vae.VAE", "catsweep.models.dcgan.DCGAN"])
def test_a_batch_of_one_cell_is_not_normalized(target, size, halvings, batch, photos, message):
    model = {"_target_": target, "image_size": size, "halvings": halvings, "normalization": BATCH_NORM}
    cfg = OmegaConf.create({"data": {"batch_size": batch}, "model": model})

    def both():
        check_model(cfg)
        if photos is not None:
            check_photos(cfg, photos)

    if message is None:
        both()
        return
    with pytest.raises(ConfigError, match=message):
        both()
    cfg.model.normalization._target_ = "catsweep.models.blocks.group_norm"
    both()


def test_losses_are_found_by_what_their_files_hold(conf):
    assert losses_for("reconstruction", conf) == ["bce", "mse"]
    assert losses_for("adversarial", conf) == ["bce", "wgan"]
    assert losses_for("perceptual", conf) == []


def test_the_projects_own_losses():
    assert {"mse", "l1", "huber", "charbonnier", "bce", "ssim", "ms_ssim", "l1_ssim", "psnr", "perceptual"} <= set(
        losses_for("reconstruction")
    )
    assert {"bce", "hinge", "lsgan", "wgan_gp", "relativistic_average", "relativistic_pairs"} <= set(
        losses_for("adversarial")
    )
    assert not {"hinge", "lsgan"} & {*losses_for("reconstruction")}
    assert not {"mse", "l1"} & {*losses_for("adversarial")}


@pytest.mark.parametrize("loss", [("reconstruction",), ("reconstruction", "adversarial")])
def test_a_loss_that_the_model_can_use_passes(loss):
    check_loss(configuration(loss=loss))


def test_an_adversarial_loss_for_a_vae_is_refused_with_the_losses_that_do():
    with pytest.raises(ConfigError) as refusal:
        check(configuration(loss=("adversarial",)))
    message = str(refusal.value)
    assert "VAE learns from a reconstruction loss; the chosen loss is adversarial only" in message
    assert "bce, charbonnier" in message
    assert "hinge" not in message


def test_a_reconstruction_loss_for_a_gan_is_refused_with_the_losses_that_do():
    with pytest.raises(ConfigError, match=r"DCGAN learns from an adversarial loss.*bce, hinge, lsgan") as refusal:
        check(configuration("catsweep.models.dcgan.DCGAN", "adversarial"))
    assert "mse" not in str(refusal.value)


def test_a_model_without_either_kind_of_loss_may_have_any():
    cfg = configuration(loss=("adversarial",))
    del cfg.model.reconstruction_loss
    check_loss(cfg)


@pytest.mark.parametrize(
    ("network", "extractor", "allowed"),
    [
        ("efficientnet_lite1", "catsweep.metrics.extractors.EfficientNetLite0", True),
        ("efficientnet_lite0", "catsweep.metrics.extractors.EfficientNetLite0", False),
        ("efficientnet_lite0", "catsweep.metrics.inception.Inception", True),
        ("efficientnet_lite1", "mylab.EfficientNetLite1", False),
    ],
)
def test_a_loss_never_looks_through_its_judge(network, extractor, allowed):
    cfg = configuration()
    cfg.loss.reconstruction.network = network
    cfg.metrics = {"extractor": {"_target_": extractor}}
    if allowed:
        check_judge(cfg)
    else:
        with pytest.raises(ConfigError, match=rf"network={network} is the metric's extractor.*metrics=inception"):
            check(cfg)


@pytest.mark.parametrize(("weight", "refused"), [(0.0, False), (1.0, True)])
def test_a_vaes_discriminator_never_looks_through_the_judge_of_its_images(weight, refused):
    cfg = configuration()
    cfg.model.adversarial = {"weight": weight, "discriminator": {"network": "efficientnet_lite0"}}
    cfg.metrics = {"extractor": {"_target_": "catsweep.metrics.extractors.EfficientNetLite0"}}
    seen = r"A discriminator .*model\.adversarial\.discriminator\.network=efficientnet_lite0"
    with pytest.raises(ConfigError, match=seen) if refused else nullcontext():
        check_judge(cfg)


@pytest.mark.parametrize(("network", "allowed"), [("efficientnet_lite1", True), ("efficientnet_lite0", False)])
def test_a_discriminator_never_looks_through_its_judge(network, allowed):
    cfg = configuration("catsweep.models.dcgan.DCGAN", "adversarial", loss=("adversarial",))
    cfg.model.discriminator = {"network": network}
    cfg.metrics = {"extractor": {"_target_": "catsweep.metrics.extractors.EfficientNetLite0"}}
    if allowed:
        check(cfg)
    else:
        with pytest.raises(ConfigError, match=r"discriminator\.network=efficientnet_lite0 is the metric's extractor"):
            check(cfg)


@pytest.mark.parametrize(
    ("key", "remedy"),
    [("loss.adversarial.gradient_penalty", "such as hinge"), ("model.r1_gamma", r"Set model\.r1_gamma=0")],
)
@pytest.mark.parametrize(
    ("weight", "normalization", "allowed"),
    [(10.0, "torch.nn.BatchNorm2d", False), (10.0, "torch.nn.Identity", True), (0.0, "torch.nn.BatchNorm2d", True)],
)
def test_a_gradient_penalty_wants_a_projected_discriminator_that_judges_single_images(
    key, remedy, weight, normalization, allowed
):
    cfg = configuration("catsweep.models.dcgan.DCGAN", "adversarial", loss=("adversarial",))
    cfg.model.discriminator = {"network": "efficientnet_lite1", "normalization": {"_target_": normalization}}
    OmegaConf.update(cfg, key, weight)
    if allowed:
        check_model(cfg)
    else:
        with pytest.raises(ConfigError, match=rf"{remedy}.*normalization\._target_=torch\.nn\.Identity.*plain"):
            check(cfg)
    del cfg.model.discriminator["network"]  # the plain one is left to the user
    check_model(cfg)


@pytest.mark.parametrize("target", ["nowhere.Model", "os.system", "catsweep.models.vae.VEA", "catsweep.nowhere.VAE"])
def test_a_model_that_is_not_found_or_not_trusted_is_left_to_its_building(target):
    check(configuration(target))


def pretrained(**changes):
    cfg = configuration("catsweep.models.vae_pretrained.PretrainedVAE")
    known = {"source": "somebody/cats", "architecture": None, "train": "prior", "couplings": 2, "hidden": 8}
    cfg.model = OmegaConf.merge(cfg.model, known, {"subfolder": None, "revision": None}, changes)
    return cfg


def test_a_pretrained_model_wants_a_source():
    check_model(pretrained())
    with pytest.raises(ConfigError, match=r"add model\.source=USER/NAME"):
        check(pretrained(source=None))


@pytest.fixture
def chosen(monkeypatch):
    """Set what the command line chose."""

    def choose(*overrides):
        node = OmegaConf.create({"hydra": {"overrides": {"task": list(overrides)}}})
        monkeypatch.setattr(HydraConfig.instance(), "cfg", node)

    return choose


def test_options_that_the_model_does_not_read_are_refused(chosen):
    cfg = pretrained()
    cfg.model.optimizer = "${optimizer}"
    chosen("model=vae_pretrained", "depth=deep", "optimizer=adam", "width=wide", "data.size=32")
    with pytest.raises(ConfigError, match=r"PretrainedVAE .*takes nothing from depth, width, so depth=deep width=wide"):
        check_groups(cfg)
    cfg.model.channels, cfg.model.halvings = "${width.channels}", "${depth.halvings}"
    check_groups(cfg)


def test_a_loss_is_read_only_where_something_is_reconstructed(chosen):
    chosen("loss=mse")
    with pytest.raises(ConfigError, match=r"with model\.train=prior takes nothing from loss"):
        check_groups(pretrained())
    check_groups(pretrained(train="decoder"))
    check_groups(configuration())


@given(configurations)
def test_a_configuration_does_not_differ_from_its_copy(before):
    assert differences(before, copy.deepcopy(before)) == []


@given(configurations, configurations)
def test_there_is_a_difference_exactly_if_they_are_unequal_and_both_ways_round(before, now):
    lines = differences(before, now)
    assert bool(lines) == (before != now)
    assert [line.partition(":")[0] for line in lines] == [line.partition(":")[0] for line in differences(now, before)]


@given(configurations, names, scalars)
def test_a_changed_leaf_is_one_line_with_its_full_key(before, key, value):
    before = {"outer": {**before, key: "old value"}}
    now = copy.deepcopy(before)
    now["outer"][key] = value
    assert differences(before, now) == [f"outer.{key}: 'old value' → {value!r}"]


@given(configurations, configurations)
def test_ignored_keys_may_differ_but_only_at_the_top(before, now):
    assert differences(before, now, ignore={*before, *now}) == []
    assert differences({"top": before}, {"top": now}, ignore={*before, *now} - {"top"}) == differences(
        {"top": before}, {"top": now}
    )


def test_added_and_removed_keys_show_against_null():
    assert differences({"a": 1, "c": None}, {"b": {"c": [2]}}) == ["a: 1 → None", "b: None → {'c': [2]}"]


def test_a_scalar_that_became_a_group_is_one_line():
    assert differences({"a": 1}, {"a": {"b": 1}}) == ["a: 1 → {'b': 1}"]
