import copy
import functools

import pytest
import torch
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

from catsweep.errors import ConfigError
from catsweep.instantiation import checked_once, instantiate, trusting


def test_a_node_becomes_what_it_names():
    node = OmegaConf.create({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2, "bias": False})
    layer = instantiate(node)
    assert isinstance(layer, torch.nn.Linear)
    assert layer.weight.shape == (2, 3)
    assert layer.bias is None


def test_partial_nodes_stay_factories():
    factory = instantiate({"_target_": "torch.nn.LeakyReLU", "_partial_": True, "negative_slope": 0.3})
    assert factory().negative_slope == 0.3
    assert factory() is not factory()


def test_a_function_of_every_step_is_checked_in_its_first_call_only(monkeypatch):
    calls = []
    node = {"_target_": "catsweep.models.schedules.constant", "_partial_": True, "warmup": 0.5}
    theirs = instantiate(node)
    monkeypatch.setattr(type(theirs), "__call__", counted(type(theirs).__call__, calls))
    ours = checked_once(theirs)
    assert [ours(step, 10) for step in (0, 1, 2)] == [theirs(step, 10) for step in (0, 1, 2)]
    assert len(calls) == 1 + 3
    assert copy.deepcopy(ours)(1, 10) == theirs(1, 10)


def test_what_hydra_refuses_stays_refused():
    theirs = instantiate({"_target_": "torch.nn.LeakyReLU", "_partial_": True})
    ours = checked_once(theirs)
    for _ in range(2):
        with pytest.raises(TypeError):
            ours(wrong=1)


@pytest.mark.parametrize("function", [abs, functools.partial(max, 3)])
def test_other_functions_are_left_as_they_are(function):
    assert checked_once(function) is function


def counted(function, calls):
    def call(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return call


def test_given_arguments_override_the_nodes():
    assert (
        instantiate({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}, out_features=7).out_features
        == 7
    )


@pytest.mark.parametrize(
    "target",
    [
        "catsweep.losses.adversarial.Hinge",
        "torch.nn.Identity",
        "kornia.losses.CharbonnierLoss",
        "pytorch_lightning.callbacks.Timer",
    ],
)
def test_our_packages_and_those_we_build_from_are_trusted(target):
    assert type(instantiate({"_target_": target})).__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.load",
        "pathlib.Path.home",
        "catsweeping.losses.hinge",
        # Through a trusted module to what it has imported.
        "catsweep.commands.os.system",
        "catsweep.runs.Path.home",
        "torch.nn.functional.torch.hub.list",
    ],
)
def test_anything_else_is_refused_without_being_called(target):
    with pytest.raises(ConfigError, match=r"is not trusted|may not be named"):
        instantiate({"_target_": target, "_args_": ["exit 3"]})


def test_targets_inside_a_trusted_one_are_held_to_the_same_rule(tmp_path):
    victim = tmp_path / "file"
    victim.touch()
    inner = {"_target_": "os.remove", "_args_": [str(victim)]}
    with pytest.raises(ConfigError, match=r"is not trusted|may not be named"):
        instantiate({"_target_": "torch.nn.Sequential", "_args_": [inner]})
    assert victim.exists()


def test_a_configuration_cannot_extend_the_list():
    node = {"_target_": "fractions.Fraction", "_args_": [3], "_execution_whitelist_": ["fractions.*"]}
    with pytest.raises(ConfigError):
        instantiate(node)


def test_ones_own_package_is_added_around_the_call():
    node = {"_target_": "fractions.Fraction", "_args_": [3]}
    with pytest.raises(ConfigError, match=r"is not trusted|may not be named"):
        instantiate(node)
    with execution_whitelist("fractions.*"):
        assert instantiate(node) == 3


@pytest.mark.security
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("fractions.Fraction", r"is not trusted.*add 'trust=\[fractions\.\*\]'\.$"),
        ("catsweep.models.vae.VEA", r"cannot be found: .*Is it spelled as in its module\?$"),
        ("torch.nn.Linaer", "cannot be found: .*'Linaer' is importable"),
        ("os.system", "may not be named, whatever is trusted"),
    ],
)
def test_a_refused_target_comes_with_a_remedy_of_the_command_line(target, said):
    with pytest.raises(ConfigError, match=said) as raised:
        instantiate({"_target_": target})
    assert "whitelist" not in str(raised.value)


@pytest.mark.security
@pytest.mark.parametrize("name", [1, None, True, "", "*", "*.a", "a.**", "a.*.b"], ids=repr)
def test_what_cannot_be_trusted_is_an_error_of_the_configuration(name):
    with pytest.raises(ConfigError, match="trust must be a list of names"), trusting([name]):
        pass


@pytest.mark.security
@pytest.mark.parametrize("inner", [False, True])
def test_a_package_that_python_does_not_find_is_told_with_the_remedy(inner):
    node = {"_target_": "nopackageofmine.losses.cubed"}
    outer = {"_target_": "torch.nn.Sequential", "_args_": [node]}
    with trusting(["nopackageofmine.*"]), pytest.raises(ConfigError, match=r"cubed.*PYTHONPATH=\. .*pip install -e"):
        instantiate(outer if inner else node)
    with trusting(["torch.nn.*"]), pytest.raises(ConfigError) as told:
        instantiate({"_target_": "torch.nn.Nothing"})
    assert "PYTHONPATH" not in str(told.value)
