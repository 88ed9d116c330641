from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from catsweep.errors import ExportError
from catsweep.export import weights
from catsweep.models.generator import evaluating
from catsweep.runs import load_run


def parts(folder) -> set[str]:
    return {name.partition(".")[0] for name in load_file(folder / "model.safetensors")}


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        (["model=vae"], {"encoder", "decoder"}),
        (["model=vae", "model.ema_decay=0.9"], {"averaged_encoder", "averaged_decoder"}),
        (["model=vae", "model.adversarial.weight=1"], {"encoder", "decoder"}),
        (["model=dcgan"], {"averaged"}),
        (["model=dcgan", "model.ema_decay=0"], {"generator"}),
        (["model=dcgan", "discriminator.spectral_norm=true", "block=residual"], {"averaged"}),
    ],
)
def test_model_comes_back_from_the_parts_that_draw(run_of, tmp_path, overrides, kept) -> None:
    run = run_of(*overrides)
    model: Any = load_run(run)[0]
    weights.save(model, run, {"study": "s"})
    assert parts(run) == kept
    torch.manual_seed(1)  # what is not in the file gets other values than it had
    again: Any = weights.load(run)
    latents, photos = torch.randn(3, 8), torch.rand(3, 3, 32, 32)
    with evaluating(model), evaluating(again):
        torch.testing.assert_close(again.decode(latents), model.decode(latents), rtol=0, atol=1e-6)
        if kept & {"encoder", "averaged_encoder"}:
            torch.testing.assert_close(again.reconstruct(photos), model.reconstruct(photos), rtol=0, atol=1e-6)


def test_averaged_and_raw_weights_are_not_mixed_up(run_of) -> None:
    run = run_of("model=dcgan")
    model: Any = load_run(run)[0]
    with torch.no_grad():
        for parameter in model.averaged.parameters():
            parameter.mul_(0.5)
    weights.save(model, run, {})
    latents = torch.randn(2, 8)
    with evaluating(model), torch.no_grad():
        drawn = weights.load(run).decode(latents)
        torch.testing.assert_close(drawn, model.averaged.module(latents), rtol=0, atol=1e-6)
        assert (drawn - model.generator(latents)).abs().max() > 1e-3


def test_saving_leaves_the_model_as_it_was(run_of) -> None:
    run = run_of("model=vae")
    model, _ = load_run(run)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights.save(model, run, {})
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_header_says_what_it_is(run_of) -> None:
    run = run_of("model=vae")
    weights.save(load_run(run)[0], run, {"study": "cats", "trial": "3"})
    with safe_open(run / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "study": "cats", "trial": "3"}


def test_missing_or_damaged_files_are_told(run_of) -> None:
    run = run_of("model=vae")
    with pytest.raises(ExportError, match="not a whole bundle"):
        weights.load(run)
    (run / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ExportError, match="not a whole bundle"):
        weights.load(run)


def test_weights_of_another_model_are_refused(run_of) -> None:
    run = run_of("model=vae")
    weights.save(load_run(run)[0], run, {})
    state = load_file(run / "model.safetensors")
    name = next(name for name in state if name.startswith("decoder."))
    for wrong in (
        {key: value for key, value in state.items() if key != name},
        state | {"decoder.more": torch.zeros(1)},
        state | {name: torch.zeros(5)},
    ):
        save_file(wrong, run / "model.safetensors")
        with pytest.raises(ExportError, match="are not those of the model"):
            weights.load(run)
