"""Draw cats from a trained generator: python src/generate.py [KEY=VALUE …]."""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="generate")
@guard
def main(cfg: DictConfig) -> None:
    """Write a page of cats, a folder or an animation."""
    from catsweep.generate import drawing  # imports torch, which --help must not wait for

    drawing.run(cfg)


if __name__ == "__main__":
    main()
