"""Export the best model as a bundle that others can use: python src/export.py [KEY=VALUE …]."""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="export")
@guard
def main(cfg: DictConfig) -> None:
    """Write the bundle."""
    from catsweep import publish  # imports torch, which --help must not wait for

    publish.run(cfg)


if __name__ == "__main__":
    main()
