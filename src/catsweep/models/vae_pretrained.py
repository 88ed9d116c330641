"""A pretrained VAE, Hugging Face's `AutoencoderKL`: its decoder fine-tuned, or a small prior learned on its latents.

The encoder is frozen, so its latents stay the same and there is no divergence to pay for: what makes standard normal
latents into those of cats is a prior, fitted to them afterwards (as in latent diffusion, with a much larger one:
Rombach et al. 2022, arXiv:2112.10752).

`complete_config` writes the architecture (`config.json`) into a run's configuration, so that the model can be built
again without its source. Only that and safetensors are read: no pickles, and no code. The package diffusers takes
seconds to import, so this module does it late.
"""

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from catsweep.errors import CatsweepError, ConfigError, DataError, PlaceError
from catsweep.images import to_float
from catsweep.instantiation import checked_once
from catsweep.models.optimization import OptimizerFactory, Schedule, build, expected_steps
from catsweep.models.prior import FitsPrior, FlowPrior
from steady.places import explain

log = logging.getLogger(__name__)

KIND = "AutoencoderKL"
CONFIG = "config.json"
EXAMPLE = "stabilityai/sd-vae-ft-mse"
EXTRA = "pip install 'catsweep[pretrained]'"


def read_architecture(source: str | None, subfolder: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """Read the `config.json` of a VAE, without Hugging Face's own entries.

    The source is an id on the Hugging Face Hub (`user/name`; `revision` is a branch, tag or commit of it), or a local
    folder as `save_pretrained` writes it; `subfolder` is that of the VAE in a whole pipeline. A `ConfigError` if it is
    none, or no `AutoencoderKL`; a `DataError` if it cannot be read.

    >>> read_architecture(None)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    catsweep.errors.ConfigError: model=vae_pretrained starts from a VAE of Hugging Face: add model.source=USER/NAME...
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
        where = f"subfolder {subfolder}" if subfolder else "no subfolder"
        raise ConfigError(
            f"model=vae_pretrained expects an {KIND}; {source} ({where}) is a {kind}. Of a whole pipeline, name the "
            f"folder of its VAE: model.subfolder=vae. Or take another: model.source={EXAMPLE}."
        )
    return {key: value for key, value in found.items() if not key.startswith("_")}


def build_autoencoder(config: Mapping[str, Any]) -> Any:
    """Build an `AutoencoderKL` with random weights from its `config.json`, as far as diffusers knows the entries.

    >>> build_autoencoder({"block_out_channels": [8], "norm_num_groups": 4}).config.latent_channels
    4
    """
    kind = _autoencoder()
    known = set(inspect.signature(kind.__init__).parameters) - {"self"}
    try:
        model = kind(**{key: value for key, value in config.items() if key in known})
    except Exception as error:  # whatever its layers say of numbers that do not fit together
        raise ConfigError(f"model.architecture does not describe an {KIND}: {error}") from error
    _use_plain_upsampling(model)
    return model


def load_autoencoder(model: nn.Module, source: str, subfolder: str | None = None, revision: str | None = None) -> None:
    """Load the weights of a source into an autoencoder; a `DataError` if there are none, or of another architecture.

    >>> import tempfile
    >>> config = {"block_out_channels": [8], "norm_num_groups": 4}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     build_autoencoder(config).save_pretrained(folder)
    ...     load_autoencoder(build_autoencoder(config), folder)
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


class PretrainedVAE(FitsPrior, pl.LightningModule):
    """A Hugging Face `AutoencoderKL` as a `catsweep.models.generator.LatentEncoder`.

    It is built with random weights, from its architecture alone. Those of the source come when it is first trained;
    a checkpoint or a bundle has its own. `train="prior"` trains a flow on the latents; `"decoder"` trains the decoder
    on the reconstruction loss, and fits a normal distribution of the latents by moments.

    >>> from catsweep.losses.reconstruction import mse
    >>> config = {"block_out_channels": [8], "norm_num_groups": 4}
    >>> parts = mse, torch.optim.Adam, lambda step, total: 1.0
    >>> PretrainedVAE(8, None, None, None, config, "prior", 2, 4, *parts).latent_size
    256
    """

    pretrained_loaded: Tensor
    prior: FlowPrior

    def __init__(
        self,
        image_size: int,  # in pixels; a multiple of what the VAE reduces images by (8, usually)
        source: str | None,  # see `read_architecture`
        subfolder: str | None,
        revision: str | None,
        architecture: Mapping[str, Any] | None,  # the source's `config.json`; None: it is read from the source
        train: Literal["prior", "decoder"],  # a flow on the latents, or the decoder with a normal distribution
        couplings: int,  # of the flow, see `FlowPrior`
        hidden: int,  # width of each coupling
        reconstruction_loss: Callable[[Tensor, Tensor], Tensor],  # (drawn, real), (N, 3, H, W) in [0, 1], to a scalar
        optimizer: OptimizerFactory,
        schedule: Schedule,  # multiplier of the learning rate
    ):
        super().__init__()
        self.source, self.subfolder, self.revision = source, subfolder, revision
        self.autoencoder = build_autoencoder(architecture or read_architecture(source, subfolder, revision))
        config = self.autoencoder.config
        side = _side(image_size, config)
        self.image_size, self.latent_size = image_size, config.latent_channels * side**2
        # What the VAE's own users multiply its latents by, so that they have a variance of about 1.
        self.scale, self.offset = float(config.scaling_factor), float(config.shift_factor or 0.0)
        self.trains_decoder = train == "decoder"
        self.prior = FlowPrior(config.latent_channels, side, 0 if self.trains_decoder else couplings, hidden)
        self.register_buffer("pretrained_loaded", torch.tensor(False))  # of the state, so that a resumed run knows
        self.autoencoder.requires_grad_(False)
        for part in filter(None, (self.autoencoder.decoder, self.autoencoder.post_quant_conv)):
            part.requires_grad_(self.trains_decoder)
        self.reconstruction_loss = checked_once(reconstruction_loss)
        self.optimizer, self.schedule = optimizer, schedule

    @classmethod
    def check_config(cls, cfg: DictConfig) -> None:
        """Raise a ConfigError for a run's configuration without a source."""
        if not cfg.model.source:
            cls.complete_config(cfg)  # says what is missing

    @classmethod
    def complete_config(cls, cfg: DictConfig) -> None:
        """Write the architecture of the source into a run's configuration, unless it has one."""
        if cfg.model.architecture is None:
            cfg.model.architecture = read_architecture(cfg.model.source, cfg.model.subfolder, cfg.model.revision)

    @classmethod
    def ignored_groups(cls, model: Mapping[str, Any]) -> dict[str, str]:
        """Groups of `conf/` that a configuration of the model does not use, each with the setting that says so."""
        return {"loss": "model.train=prior"} if model.get("train") == "prior" else {}

    def on_fit_start(self) -> None:
        """Load the source's weights, unless a checkpoint has been restored."""
        if not self.pretrained_loaded:
            load_autoencoder(self.autoencoder, str(self.source), self.subfolder, self.revision)
            self.pretrained_loaded.fill_(True)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the scaled latents, each (N, c, s, s), of images (N, 3, H, W) in [0, 1]."""
        posterior = self.autoencoder.encode(2 * images - 1).latent_dist
        return (posterior.mean.float() - self.offset) * self.scale, posterior.std.float() * self.scale

    def draw(self, scaled: Tensor) -> Tensor:
        """Draw images (N, 3, H, W), about in [0, 1], of scaled latents (N, c, s, s)."""
        decoded: Tensor = self.autoencoder.decode(scaled / self.scale + self.offset).sample
        return (decoded + 1) / 2

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`; the latents pass through the prior."""
        return self.draw(self.prior(latents)).clamp(0, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """See `Reconstructor.reconstruct`: from the means of the latents."""
        return self.draw(self.encode(images)[0]).clamp(0, 1)

    def latents_of(self, images: Tensor) -> Tensor:
        """See `LatentEncoder.latents_of`: the means, passed back through the prior."""
        return self.prior.inverse(self.encode(images)[0])

    def loss(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """Compute the training loss per image: of reconstruction, or the latent's negative log-likelihood in nats.

        Of images (N, 3, H, W) in [0, 1]; `noise` is (N, c, s, s), standard normal, or None for the mean of the latent.
        """
        with torch.no_grad():
            mean, deviation = self.encode(images)
        scaled = mean if noise is None else mean + deviation * noise
        if self.training:
            with torch.autocast(self.device.type, enabled=False):  # a covariance in bf16 need not be positive definite
                self.prior.update(mean, deviation.square())
        if self.trains_decoder:
            drawn = self.draw(scaled).float()
            # Losses are of images in [0, 1]. Beyond it the gradient must live on, or a pixel could never come back.
            drawn = drawn + (drawn.clamp(0, 1) - drawn).detach()
            loss: Tensor = self.reconstruction_loss(drawn, images)
            return loss
        with torch.autocast(self.device.type, enabled=False):
            return self.prior.negative_log_likelihood(scaled).mean()

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        """Compute the loss of a uint8 batch (N, H, W, 3)."""
        noise = torch.randn(len(batch), *self.prior.shape, device=self.device)
        loss = self.loss(to_float(batch), noise)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch), sync_dist=True)
        return loss

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log the loss of held-out photos, at the mean of the latent so that it does not fluctuate."""
        self.log("val/loss", self.loss(to_float(batch), None), prog_bar=True, batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        """Build an optimizer of what is trained; its schedule advances with every step."""
        optimizer, schedule = build(self, self.optimizer, self.schedule, partial(expected_steps, self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _side(image_size: int, config: Any) -> int:
    """Side of the map of latents; raises ConfigError if the VAE is not one of such images."""
    reduction: int = 2 ** (len(config.block_out_channels) - 1)
    if image_size % reduction:
        raise ConfigError(
            f"This VAE reduces images by {reduction}, so data.size must be a multiple of it; got {image_size}."
        )
    if (config.in_channels, config.out_channels) != (3, 3):
        raise ConfigError(
            f"model.source must be a VAE of images with 3 channels; this one takes {config.in_channels} and draws "
            f"{config.out_channels}."
        )
    return image_size // reduction


class _Upsample(nn.Module):
    """Twice the size, then the convolution of diffusers' `Upsample2D`, whose weights keep their names.

    Diffusers' own branches on batches of 64 images or more, so that an exporter takes the batch size for a constant.
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
