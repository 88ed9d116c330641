import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from catsweep.configuration import check, check_loss, check_numbers, differences, losses_for
from catsweep.errors import ConfigError

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
    budget = {"epochs": 1, "eval_every": 1, "minutes": None, "patience": None, **values}
    model = {"_target_": target, f"{kind}_loss": f"${{loss.{kind}}}"}
    return OmegaConf.create({"model": model, "loss": {key: {"_target_": "x.y"} for key in loss}, **budget})


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


def test_losses_are_found_by_what_their_files_hold(conf):
    assert losses_for("reconstruction", conf) == ["bce", "mse"]
    assert losses_for("adversarial", conf) == ["bce", "wgan"]
    assert losses_for("perceptual", conf) == []


def test_the_projects_own_losses():
    assert {"mse", "l1", "huber", "charbonnier", "bce", "ssim", "ms_ssim", "l1_ssim", "psnr"} == set(
        losses_for("reconstruction")
    )
    assert {"bce", "hinge", "lsgan", "wgan_gp", "relativistic_average"} == set(losses_for("adversarial"))


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


@pytest.mark.parametrize("key", ["epochs", "eval_every"])
@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, "3", None, True])
def test_counts_must_be_whole_and_positive(key, value):
    with pytest.raises(ConfigError, match=rf"^{key} must be a whole number from 1 up; got {value!r}"):
        check(configuration(**{key: value}))


@pytest.mark.parametrize("key", ["minutes", "patience"])
@pytest.mark.parametrize("value", [0, -0.5, "long", True, float("nan")])
def test_bounds_must_be_positive(key, value):
    with pytest.raises(ConfigError, match=rf"^{key} must be a number above 0, or null for no bound; got {value!r}"):
        check(configuration(**{key: value}))


@given(count=st.integers(1), bound=st.none() | st.integers(1) | st.floats(0, exclude_min=True))
def test_positive_budgets_pass(count, bound):
    check_numbers(configuration(epochs=count, eval_every=count, minutes=bound, patience=bound))


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
