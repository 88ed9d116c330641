"""A VAE that others have trained: where it is, how it is built, and its weights. Hugging Face's `AutoencoderKL`.

Flow: `configuration.complete` reads the architecture (`config.json`) and writes it into the run's configuration, so
that the model can be built again, from a checkpoint or a bundle, without the source; `PretrainedVAE` builds it, and
takes the weights when it first trains. Only `config.json` and safetensors are read: no pickles, and no code.

The package diffusers (`pip install 'catsweep[pretrained]'`) takes seconds to import, so this module does it late.
"""

import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catsweep.errors import CatsweepError, ConfigError, DataError, PlaceError
from steady.places import explain

log = logging.getLogger(__name__)

KIND = "AutoencoderKL"
CONFIG = "config.json"
EXAMPLE = "stabilityai/sd-vae-ft-mse"
EXTRA = "pip install 'catsweep[pretrained]'"


def architecture(source: str | None, subfolder: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """What the VAE is built of: its `config.json`, without Hugging Face's own entries.

    Args:
        source: id on the Hugging Face Hub (`user/name`), or a local folder as `save_pretrained` writes it.
        subfolder: in which the VAE is, if the source is a whole pipeline.
        revision: branch, tag or commit of a source on the Hub.

    Raises:
        ConfigError: no source, or something else than an `AutoencoderKL`.
        DataError: it cannot be read; the message says what is needed.
    """
    if not source:
        raise ConfigError(
            "model=vae_pretrained starts from a VAE of Hugging Face: add model.source=USER/NAME, for example "
            f"model.source={EXAMPLE} (335 MB, needs a network once), or model.source=DIR, a local folder with "
            f"{CONFIG} and safetensors weights."
        )
    try:
        found = json.loads(_file(source, subfolder, revision).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(source, subfolder, error) from error
    kind = found.get("_class_name") if isinstance(found, dict) else None
    if kind != KIND:
        where = "subfolder " + subfolder if subfolder else "no subfolder"
        raise ConfigError(
            f"model=vae_pretrained expects an {KIND}; {source} ({where}) is a {kind}. Of a whole pipeline, name the "
            f"folder of its VAE: model.subfolder=vae. Or take another: model.source={EXAMPLE}."
        )
    return {key: value for key, value in found.items() if not key.startswith("_")}


def build(config: Mapping[str, Any]) -> Any:
    """An `AutoencoderKL` with random weights.

    Args:
        config: what `architecture` returned. Entries that this version of diffusers does not know are left out.

    Raises:
        DataError: diffusers is not installed.
        ConfigError: an impossible configuration.
    """
    kind = _autoencoder()
    known = set(inspect.signature(kind.__init__).parameters) - {"self"}
    try:
        model = kind(**{key: value for key, value in config.items() if key in known})
    except Exception as error:  # whatever its layers say of numbers that do not fit together
        raise ConfigError(f"model.architecture does not describe an {KIND}: {error}") from error
    _use_plain_upsampling(model)
    return model


def load(model: nn.Module, source: str, subfolder: str | None = None, revision: str | None = None) -> None:
    """Give a model that `build` built the weights of its source; arguments as for `architecture`.

    Raises:
        DataError: they cannot be had, or are not those of this architecture.
    """
    kind = _autoencoder()
    log.info("Taking the weights of %s", source)
    try:
        loaded, report = kind.from_pretrained(
            source,
            subfolder=subfolder,
            revision=revision,
            use_safetensors=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,  # would need another package
            output_loading_info=True,
        )
        # What is missing would keep random values, of which diffusers only warns.
        if wrong := [*report["missing_keys"], *report["unexpected_keys"]]:
            raise ValueError(f"{len(wrong)} weights are missing or unknown, first {wrong[0]}")
        model.load_state_dict(loaded.state_dict())
    except Exception as error:  # of disks, of the network, of safetensors, and diffusers' own
        raise _unreadable(source, subfolder, error) from error


class _Upsample(nn.Module):
    """Twice the size, then the convolution of diffusers' `Upsample2D`, whose weights keep their names.

    Diffusers' own asks whether a batch has 64 images or more, so that an exporter takes the size of the batch for a
    constant.
    """

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, maps: Tensor, *_: object) -> Tensor:
        drawn: Tensor = self.conv(nn.functional.interpolate(maps, scale_factor=2.0, mode="nearest"))
        return drawn


def _use_plain_upsampling(model: nn.Module) -> None:
    from diffusers.models.upsampling import Upsample2D

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Upsample2D) and isinstance(child.conv, nn.Conv2d):
                setattr(parent, name, _Upsample(child.conv))


def _file(source: str, subfolder: str | None, revision: str | None) -> Path:
    folder = Path(source).expanduser() / (subfolder or "")
    if Path(source).expanduser().is_dir():
        if not any(folder.glob("*.safetensors")):
            raise FileNotFoundError("there are no weights (*.safetensors)")
        return folder / CONFIG
    _autoencoder()  # huggingface_hub comes with it
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source, CONFIG, subfolder=subfolder, revision=revision))


def _autoencoder() -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise DataError(
            f"Expected diffusers, which builds the VAE of model=vae_pretrained, but it is not installed: {EXTRA}."
        ) from error
    return AutoencoderKL


def _unreadable(source: str, subfolder: str | None, error: Exception) -> CatsweepError:
    if (wrong := explain(error, key="the environment variable HF_HOME")) is not None:
        return PlaceError(wrong)
    said = " ".join(str(error).split())[:300]
    where = f"subfolder {subfolder} of {source}" if subfolder else source
    return DataError(
        f"Expected the {CONFIG} and the safetensors weights of an {KIND} in {where}, but: "
        f"{type(error).__name__}: {said}. model.source is an id on the Hugging Face Hub (USER/NAME, such as {EXAMPLE}; "
        f"it takes a network the first time, and {EXTRA}), or a local folder that save_pretrained wrote."
    )
