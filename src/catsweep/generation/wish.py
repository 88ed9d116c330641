"""What a person asks of `python src/generate.py`, checked as far as it can be before anything is loaded or drawn."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from catsweep.errors import ConfigError
from steady.links import plain

PAGE, FOLDER, ANIMATION = "page", "folder", "animation"
ANIMATIONS = (".gif", ".webp")


@dataclass(frozen=True)
class Attribute:
    """What is changed along each row.

    Attributes:
        measure: one of `catsweep.generation.attributes.MEASURES`, or None.
        having: photos that have the attribute, or None.
        lacking: photos without it, or None.
        strength: how far each row goes either way, in standard deviations of the latents.
        steps: images per row.
        draws: cats that are drawn to be measured.
    """

    measure: str | None
    having: str | None
    lacking: str | None
    strength: float
    steps: int
    draws: int

    @property
    def name(self) -> str:
        """What it is called in names of files and in messages."""
        return self.measure or Path(str(self.having)).name


@dataclass(frozen=True)
class Wish:
    """The keys of `conf/generate.yaml` that say what is drawn; see there.

    Attributes:
        attribute: None if none was named.
        out: None if none was named.
        form: `PAGE`, `FOLDER` or `ANIMATION`.
    """

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
    form: str
    overwrite: bool

    @property
    def rows(self) -> int:
        """How many cats it begins with: each is drawn `images_per_cat` times, and `n` images there may be."""
        return self.n // self.images_per_cat

    @property
    def images_per_cat(self) -> int:
        """How many images are made of one cat."""
        return self.interpolate or (self.attribute.steps if self.attribute else 1)

    @property
    def kind(self) -> str:
        """Beginning of the name of the file, if the person gives none."""
        if self.attribute:
            return f"attribute_{plain(self.attribute.name, 'photos')}"
        return "interpolation" if self.interpolate else "reconstructions" if self.photos else "generated"


def read(cfg: DictConfig) -> Wish:
    """Check what is asked for.

    Args:
        cfg: as in `conf/generate.yaml`.

    Raises:
        ConfigError: naming the key, what it must be, and what it is.
    """
    attribute = _attribute(cfg.attribute)
    out, form = _out(cfg.out)
    wish = Wish(
        n=cfg.n,
        seed=cfg.seed,
        truncation=float(cfg.truncation),
        columns=cfg.columns,
        scale=cfg.scale,
        interpolate=cfg.interpolate,
        fps=cfg.fps,
        photos=cfg.photos,
        attribute=attribute,
        out=out,
        form=form,
        overwrite=cfg.overwrite,
    )
    _check_together(wish)
    if out is not None:
        check_place(out, form, wish.overwrite)
    return wish


def _check_together(wish: Wish) -> None:
    """Refuse keys that are good each by itself and mean nothing together."""
    if wish.form == ANIMATION and wish.interpolate is None:
        raise ConfigError(f"out={wish.out} is an animation of a walk: add interpolate=8, or take a .png for a page.")
    if wish.interpolate is not None and wish.attribute is not None:
        raise ConfigError(
            f"interpolate={wish.interpolate} walks from cat to cat, and an attribute changes each: leave one out."
        )
    if wish.photos is not None and wish.truncation != 1:
        raise ConfigError(
            f"truncation={wish.truncation} is of cats that are drawn by chance, and photos={wish.photos} are not. "
            f"Leave it out."
        )
    ends = 2 if wish.form == ANIMATION else 1
    if wish.rows < ends:
        key = "interpolate" if wish.interpolate else "attribute.steps"
        two = " for the two cats that a walk needs at least" if ends == 2 else ""
        raise ConfigError(
            f"{key}={wish.images_per_cat} steps do not fit into n={wish.n} images{two}. Take a larger n or fewer steps."
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
    """The place that was named, and what it is to hold, by its ending."""
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


def check_place(out: Path, form: str, overwrite: bool) -> None:
    """Refuse a place that is taken.

    Raises:
        ConfigError: something else is there, or what would be overwritten.
    """
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
