"""Find and load the generator to draw with: an exported bundle, a run, or the best model.

A bundle is drawn with ONNX Runtime, as its other users draw from it; its torch model is built only for what ONNX has no
file for, the latents of a photo.
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from catsweep.errors import ConfigError, ExportError
from catsweep.export import digests
from catsweep.export.graphs import load_bundle
from catsweep.models.generator import Generator, LatentEncoder, Reconstructor
from catsweep.runs import CONFIG, Bundle
from steady.printing import say

EXPORTS, BEST_MODEL = Path("outputs/exports"), Path("outputs/best_model")
BEST = "best"


@dataclass(frozen=True)
class Source:
    """A folder with a trained generator, each part of which is loaded on first use."""

    folder: Path  # an exported bundle, or the folder of a run
    checkpoint: str = BEST  # of a run, `best` or `last`

    @cached_property
    def is_bundle(self) -> bool:
        """Whether it is an exported bundle."""
        return Bundle.is_at(self.folder)

    @cached_property
    def generator(self) -> Generator:
        """The model that draws; a DataError if a run, an ExportError if a bundle holds no whole one."""
        if not self.is_bundle:
            return self._torch_model
        self._verify()
        return load_bundle(self.folder)

    @cached_property
    def _torch_model(self) -> Generator:
        # Both import Lightning, which drawing from a bundle does not need.
        if self.is_bundle:
            from catsweep.export.weights import load

            self._verify()
            return load(self.folder)
        from catsweep.runs import load_run

        model, _ = load_run(self.folder, self.checkpoint)
        assert isinstance(model, Generator)
        return model

    def _verify(self) -> None:
        for line in digests.verify(self.folder):
            say(line, file=sys.stderr)

    @property
    def reconstructs(self) -> bool:
        """Whether the model reconstructs photos."""
        return isinstance(self.generator, Reconstructor)

    @property
    def reconstructor(self) -> Reconstructor:
        """The model that reconstructs photos; a ConfigError if it cannot."""
        model = self.generator
        if not isinstance(model, Reconstructor):
            raise self._unable()
        return model

    @property
    def encoder(self) -> LatentEncoder:
        """The model that encodes a photo; a ConfigError if it cannot."""
        if self.is_bundle:
            _ = self.reconstructor  # asks the ONNX files, so that a DCGAN is refused at once
        model = self._torch_model
        if not isinstance(model, LatentEncoder):
            raise self._unable()
        return model

    def _unable(self) -> ConfigError:
        return ConfigError(
            f"The model in {self.folder} draws cats but cannot take in a photo: it has no encoder, like every DCGAN. "
            f"Take a VAE for photos (model=vae when you train), or leave photos and attribute.with out; "
            f"attribute.measure works with any model."
        )


def choose(bundle: str | None, run: str | None, checkpoint: str = BEST) -> Source:
    """Choose the generator; nothing is loaded yet.

    Args:
        bundle: an exported bundle.
        run: instead, the folder of a run or of the best model. Neither: the bundle that was written last in
            outputs/exports; where there is none, outputs/best_model.
        checkpoint: of a run.

    Raises:
        ConfigError: both were given, or a folder under the other's name.
        ExportError: there is no such bundle, or nothing at all.
    """
    if bundle is not None and run is not None:
        raise ConfigError(f"Expected bundle=… or run=…, got both: bundle={bundle} run={run}. Leave one out.")
    source = Source(_named(bundle, run), checkpoint)
    if source.is_bundle and checkpoint != BEST:
        raise ConfigError(
            f"checkpoint={checkpoint} is of a run, and the bundle {source.folder} holds one model. "
            f"Name the run it was exported from: run=…"
        )
    return source


def _named(bundle: str | None, run: str | None) -> Path:
    if bundle is not None:
        folder = Path(bundle).expanduser()
        if not Bundle.is_at(folder):
            hint = f" That is the folder of a run: run={bundle}" if (folder / CONFIG).is_file() else ""
            raise ExportError(
                f"Expected an exported bundle in {folder}, but it holds no generator.onnx.{hint} "
                f"`make best-model export` writes a bundle to {EXPORTS}/."
            )
        return folder
    if run is not None:
        folder = Path(run).expanduser()
        if Bundle.is_at(folder):
            raise ConfigError(f"run={run} is an exported bundle, not a run. Say bundle={run}")
        return folder
    try:
        return Bundle.latest(EXPORTS)
    except ExportError:
        if (BEST_MODEL / CONFIG).is_file():
            return BEST_MODEL
        raise ExportError(
            f"There is nothing to draw with: no bundle in {EXPORTS}/ and no {BEST_MODEL}/. After a sweep, "
            f"`make best-model export` writes both. Or name a run: run=outputs/runs/DATE/TIME"
        ) from None
