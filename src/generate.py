"""Draw cats from a trained generator.

python src/generate.py [KEY=VALUE …]
"""

import hydra
from omegaconf import DictConfig

from catsweep.commands import guard


@hydra.main(config_path="../conf", config_name="generate")
@guard
def main(cfg: DictConfig) -> None:
    """Write a page of cats, a folder or an animation."""
    from catsweep.generation import command  # imports torch, which --help must not wait for

    command.run(cfg)


if __name__ == "__main__":
    main()
