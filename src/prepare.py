"""Turn raw photos into a ready set: python src/prepare.py data=photos data.source=DIR [KEY=VALUE …]."""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="prepare")
@guard
def main(cfg: DictConfig) -> None:
    """Run the stages that have to run."""
    from catsweep.prepare import pipeline  # imports OpenCV, which --help must not wait for

    pipeline.run(cfg)


if __name__ == "__main__":
    main()
