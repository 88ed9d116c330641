"""Train one generator (`catsweep.training.fit.run`), or with -m sweep over many (`steady.sweep.run`).

python src/train.py [GROUP=OPTION …] [KEY=VALUE …]
python src/train.py -m hparams_search=vae_optuna
"""

from catsweep.commands import guard  # isort: skip  # first: from here on Ctrl-C is one line

import hydra
from omegaconf import DictConfig

from catsweep import runs

runs.register()


@hydra.main(config_path="../conf", config_name="train")
@guard
def main(cfg: DictConfig) -> float | tuple[float, ...]:
    """Train, score, and return the values of `objective`."""
    from catsweep.training import fit  # imports torch, which --help must not wait for

    return fit.run(cfg)


if __name__ == "__main__":
    main()
