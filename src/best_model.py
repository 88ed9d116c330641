"""Copy the best trial of a study to outputs/best_model: python src/best_model.py [KEY=VALUE …]."""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="best_model")
@guard
def main(cfg: DictConfig) -> None:
    """Choose and copy."""
    from catsweep.export import choice  # imports Optuna, which --help must not wait for

    choice.run(cfg)


if __name__ == "__main__":
    main()
