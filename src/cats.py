"""From photos to a generator within a budget of time: python src/cats.py source=DIR budget=60 [KEY=VALUE …]."""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="cats")
@guard
def main(cfg: DictConfig) -> None:
    """Prepare, search, confirm, train the best on, export and report."""
    from catsweep.cats import steps  # imports OpenCV, which --help must not wait for

    steps.run(cfg)


if __name__ == "__main__":
    main()
