"""New cats from a trained generator, as one PNG: `python src/generate.py run=… n=64`.

Takes the folder of any run, `outputs/best_model`, or an exported bundle.
"""

from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from catsweep.errors import ConfigError
from catsweep.export.onnx import FILE, OnnxGenerator
from catsweep.models.latents import draw_latents, interpolate
from catsweep.models.protocol import Generator, generate
from catsweep.report.grids import grid, save_png


def run(cfg: DictConfig) -> Path:
    """Draw images, write them on one page, and print where it is.

    Args:
        cfg: as in `conf/generate.yaml`.

    Returns:
        The PNG.

    Raises:
        ConfigError: a number out of its range.
        DataError: the folder holds no trained model.
        ExportError: the folder holds a damaged bundle.
    """
    check(cfg)
    source = Path(cfg.run)
    model = load_generator(source, cfg.checkpoint)
    latents, columns = choose_latents(cfg, model.latent_size)
    kind = "interpolation" if cfg.interpolate else "generated"
    out = Path(cfg.out or source / f"{kind}_{cfg.seed}.png")
    save_png(out, grid(generate(model, latents).numpy(), columns))
    print(out)
    return out


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be drawn, before anything is loaded.

    Raises:
        ConfigError: naming the key, what it must be, and what it is.
    """
    _whole("n", cfg.n, 1)
    _whole("seed", cfg.seed, 0)
    if cfg.columns is not None:
        _whole("columns", cfg.columns, 1)
    if not isinstance(cfg.truncation, int | float) or not 0 < cfg.truncation <= 1:
        raise ConfigError(f"truncation must be above 0 and at most 1 (which is none); got {cfg.truncation!r}.")
    if cfg.interpolate is not None:
        _whole("interpolate", cfg.interpolate, 2)
        if cfg.interpolate > cfg.n:
            raise ConfigError(
                f"interpolate={cfg.interpolate} steps do not fit into n={cfg.n} images. Take a larger n or fewer steps."
            )
    if cfg.out is not None and Path(cfg.out).suffix.lower() != ".png":
        raise ConfigError(f"out must be a .png file, or null for one in the run's folder; got {cfg.out!r}.")


def load_generator(source: Path, checkpoint: str = "best") -> Generator:
    """The generator in a folder.

    Args:
        source: an exported bundle, which is drawn with ONNX Runtime, or the folder of a run.
        checkpoint: of a run, `best` or `last`.

    Raises:
        DataError: the folder is neither.
        ExportError: the bundle is damaged.
    """
    if (source / FILE).is_file():
        return OnnxGenerator(source / FILE)
    from catsweep.runs import load_run  # imports Lightning, which a bundle does not need

    model, _ = load_run(source, checkpoint)
    assert isinstance(model, Generator)
    return model


def choose_latents(cfg: DictConfig, latent_size: int) -> tuple[Tensor, int | None]:
    """What to draw, and in how many columns (`None`: as square as possible).

    With `interpolate` each row walks from one cat to another in that many steps; as many whole rows as fit into `n`.
    Truncation pulls the latents towards their mean, 0, by a factor: likelier cats, and less variety (the truncation
    trick of Karras et al. 2019, arXiv:1812.04948, appendix B, on a latent whose mean is known).

    Returns:
        Latents, float32, shape (N, latent_size); columns.
    """
    if cfg.interpolate is None:
        return cfg.truncation * draw_latents(cfg.n, latent_size, cfg.seed), cfg.columns
    ends = draw_latents(2 * (cfg.n // cfg.interpolate), latent_size, cfg.seed)
    walks = [interpolate(start, end, cfg.interpolate) for start, end in ends.view(-1, 2, latent_size)]
    return cfg.truncation * torch.cat(walks), cfg.interpolate


def _whole(key: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"{key} must be a whole number from {low} up; got {value!r}.")
