"""Options of `python src/generate.py`, checked before anything is loaded or drawn."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from catsweep.errors import ConfigError
from steady.safe_paths import plain_name

PAGE, FOLDER, ANIMATION = "page", "folder", "animation"
ANIMATIONS = (".gif", ".webp")


@dataclass(frozen=True)
class Attribute:
    """An attribute that changes along each row."""

    measure: str | None  # one of `catsweep.generate.interpolation.MEASURES`
    having: str | None  # photos that have the attribute
    lacking: str | None  # photos without it
    strength: float  # how far each row goes either way, in standard deviations of the latents
    steps: int  # images per row
    draws: int  # cats that are drawn to be measured

    @property
    def name(self) -> str:
        """Name in file names and messages."""
        return self.measure or Path(str(self.having)).name


@dataclass(frozen=True)
class GenerateOptions:
    """The keys of `conf/generate.yaml` that say what is drawn; see there."""

    n: int
    seed: int
    truncation: float
    columns: int | None
    scale: int
    interpolate: int | None
    fps: int
    photos: str | None
    attribute: Attribute | None
    out: Path | None
    form: str  # `PAGE`, `FOLDER` or `ANIMATION`
    overwrite: bool

    @property
    def rows(self) -> int:
        """Number of cats, each drawn `images_per_cat` times."""
        return self.n // self.images_per_cat

    @property
    def images_per_cat(self) -> int:
        """Number of images of one cat."""
        return self.interpolate or (self.attribute.steps if self.attribute else 1)

    @property
    def file_name(self) -> str:
        """Name of the page where no other was given."""
        if self.attribute:
            kind = f"attribute_{plain_name(self.attribute.name, 'photos')}"
        else:
            kind = "interpolation" if self.interpolate else "reconstructions" if self.photos else "generated"
        return f"{kind}.png" if self.photos else f"{kind}_{self.seed}.png"


def read(cfg: DictConfig) -> GenerateOptions:
    """Read and check the options; a ConfigError names the key, what it must be, and what it is."""
    attribute = _attribute(cfg.attribute)
    out, form = _out(cfg.out)
    same = {key: cfg[key] for key in ("n", "seed", "columns", "scale", "interpolate", "fps", "photos", "overwrite")}
    options = GenerateOptions(truncation=float(cfg.truncation), attribute=attribute, out=out, form=form, **same)
    _check_together(options)
    if out is not None:
        _require_free(out, form, options.overwrite)
    return options


def _check_together(options: GenerateOptions) -> None:
    """Refuse keys that are valid each by itself but not together."""
    if options.form == ANIMATION and options.interpolate is None:
        raise ConfigError(f"out={options.out} is an animation of a walk: add interpolate=8, or take a .png for a page.")
    if options.interpolate is not None and options.attribute is not None:
        raise ConfigError(
            f"interpolate={options.interpolate} walks from cat to cat, and an attribute changes each: leave one out."
        )
    if options.photos is not None and options.truncation != 1:
        raise ConfigError(
            f"truncation={options.truncation} is of cats that are drawn by chance, and photos={options.photos} are "
            "not. Leave it out."
        )
    ends = 2 if options.form == ANIMATION else 1
    if options.rows < ends:
        key = "interpolate" if options.interpolate else "attribute.steps"
        two = " for the two cats that a walk needs at least" if ends == 2 else ""
        raise ConfigError(
            f"{key}={options.images_per_cat} steps do not fit into n={options.n} images{two}. Take a larger n or fewer "
            "steps."
        )


def _attribute(node: DictConfig) -> Attribute | None:
    measure, having, lacking = node.measure, node["with"], node.without
    if measure is None and having is None and lacking is None:
        return None
    if measure is not None and (having is not None or lacking is not None):
        raise ConfigError("Expected attribute.measure, or attribute.with and attribute.without; got both.")
    if measure is None and (having is None or lacking is None):
        raise ConfigError(
            f"An attribute needs photos with it and photos without it, attribute.with=DIR attribute.without=DIR; "
            f"got attribute.with={having} attribute.without={lacking}."
        )
    return Attribute(measure, having, lacking, float(node.strength), node.steps, node.draws)


def _out(value: str | None) -> tuple[Path | None, str]:
    """Parse the path, and the form of the output by its ending."""
    if value is None:
        return None, PAGE
    path = Path(str(value)).expanduser()
    suffix = path.suffix.lower()
    if suffix == ".png":
        return path, PAGE
    if suffix in ANIMATIONS:
        return path, ANIMATION
    if not suffix or str(value).endswith("/") or path.is_dir():
        return path, FOLDER
    raise ConfigError(
        f"out must be a .png (a page), a .gif or .webp (a walk), or a folder; got {str(value)!r}. "
        f"End it in / if it is a folder."
    )


def _require_free(out: Path, form: str, overwrite: bool) -> None:
    """Refuse a path where something else is, or what would be overwritten."""
    if above := next((parent for parent in out.parents if parent.exists() and not parent.is_dir()), None):
        raise ConfigError(f"out={out} cannot be written, for {above} is a file and no folder. Take another place.")
    if form == FOLDER:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"out={out} is to be a folder, and a file of that name is there. Take another name.")
        if not overwrite and out.is_dir() and any(out.iterdir()):
            raise ConfigError(
                f"The folder out={out} is not empty. Take another, or add overwrite=true: that replaces files of the "
                f"same names, and leaves all others."
            )
    elif out.is_dir():
        raise ConfigError(f"out={out} is to be a file, and a folder of that name is there. Take another name.")
    elif not overwrite and out.exists():
        raise ConfigError(f"out={out} is there already. Take another name, or add overwrite=true to replace it.")
