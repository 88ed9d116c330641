"""Score an exported bundle again, from its own files: python src/evaluate.py [KEY=VALUE …]."""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="evaluate")
@guard
def main(cfg: DictConfig) -> None:
    """Print each score beside its record."""
    from catsweep.export import evaluation  # imports torch, which --help must not wait for

    evaluation.run(cfg)


if __name__ == "__main__":
    main()
