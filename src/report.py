"""Write report.html and report.md on a study: python src/report.py [KEY=VALUE …]."""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="report")
@guard
def main(cfg: DictConfig) -> None:
    """Write both."""
    from catsweep.report import render  # imports Optuna, which --help must not wait for

    render.run(cfg)


if __name__ == "__main__":
    main()
