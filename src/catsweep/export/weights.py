"""Write the weights of a generator as a safetensors file, and rebuild the model from it.

Only what drawing needs is kept: a DCGAN's averaged generator, not the raw one nor the discriminator; a VAE's
decoder, and its encoder because it can also reconstruct.
"""

from contextlib import ExitStack
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from catsweep.errors import ExportError
from catsweep.models import meta_model
from catsweep.models.generator import Generator, Reconstructor, evaluating
from catsweep.runs import CONFIG, Bundle, RunDir
from catsweep.untrusted_config import rebuild

WEIGHTS = Bundle.WEIGHTS
LARGEST = 20  # times what is kept of it, at most, may a model be; of a DCGAN a third is
FREE = 10_000_000  # numbers that it may have besides, 40 MB: a discriminator's size does not depend on what draws


def parts_in_use(model: LightningModule) -> set[str]:
    """List the model's direct submodules that run when it draws, and when it reconstructs if it can."""
    used: set[str] = set()
    with ExitStack() as hooks:
        for part, child in model.named_children():
            for module in child.modules():
                hooks.enter_context(module.register_forward_pre_hook(lambda *_, part=part: used.add(part)))
        with evaluating(model):
            assert isinstance(model, Generator)
            images = model.decode(torch.zeros(1, model.latent_size))
            if isinstance(model, Reconstructor):
                model.reconstruct(images)
    return used


def save(model: LightningModule, folder: Path, metadata: dict[str, str]) -> None:
    """Write what drawing needs of the state of a model on the CPU to `model.safetensors`, metadata in its header."""
    used = parts_in_use(model)
    state: dict[str, Tensor] = {
        name: tensor.detach().contiguous()
        for name, tensor in model.state_dict().items()
        if "." not in name or name.partition(".")[0] in used
    }
    # Not save_file, whose files only their owner may read.
    (folder / WEIGHTS).write_bytes(serialize(state, {"format": "pt"} | metadata))


def count(folder: Path) -> int:
    """Count the numbers in a bundle's file of weights."""
    return sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())


def load(folder: Path) -> Generator:
    """Rebuild a model from a bundle's `config.yaml` and `model.safetensors`.

    It is on the CPU, in evaluation mode, and draws as the original did; what serves training only has fresh weights.

    Raises:
        ConfigError: the configuration names what a loaded one may not, or cannot be read.
        ExportError: a file is missing or damaged, or the weights are not those of the configured model.
    """
    try:
        config, state = RunDir(folder).config(), load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{folder} is not a whole bundle: {error}. Write it again with `make export`.") from error
    _refuse_others(meta_model.build_on_meta(config, len(state)), state, folder)
    model: LightningModule = rebuild(config, "model")
    model.load_state_dict(state, strict=False)
    model.eval()
    assert isinstance(model, Generator)
    return model


def _refuse_others(model: LightningModule, state: dict[str, Tensor], folder: Path) -> None:
    """Refuse the weights of another model, and a model whose other parts are far larger than what is there."""
    kept = {name.partition(".")[0] for name in state}
    expected = model.state_dict()
    missing = [name for name in expected if name not in state and name.partition(".")[0] in kept]
    strange = [name for name, tensor in state.items() if name not in expected or expected[name].shape != tensor.shape]
    if missing or strange:
        raise ExportError(
            f"The weights in {folder / WEIGHTS} are not those of the model in {CONFIG}: "
            f"missing {missing[:3]}, not expected {strange[:3]}. Was one of the two files changed?"
        )
    whole, there = meta_model.count_numbers(model), sum(tensor.numel() for tensor in state.values())
    if whole > LARGEST * there + FREE:
        raise ExportError(
            f"The weights in {folder / WEIGHTS} are {there:,} numbers, and the model in {CONFIG} has {whole:,}. "
            "Was one of the two files changed?"
        )
