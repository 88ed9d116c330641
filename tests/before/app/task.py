"""A task of somebody else, which knows nothing of the sweeper: `python task.py -m`."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(config_path=".", config_name="config")
def main(cfg: DictConfig) -> float:
    if HydraConfig.get().job.num == cfg.failing:
        raise RuntimeError("a fault of the task")
    return float(cfg.x) ** 2 + "abc".index(cfg.y)


if __name__ == "__main__":
    main()
