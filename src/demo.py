"""Play with a trained generator in the browser: python src/demo.py [KEY=VALUE …]."""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="demo")
@guard
def main(cfg: DictConfig) -> None:
    """Serve a page on this machine until Ctrl-C."""
    from catsweep.app import launch  # imports torch, which --help must not wait for

    launch.run(cfg)


if __name__ == "__main__":
    main()
