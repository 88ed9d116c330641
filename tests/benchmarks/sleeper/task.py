"""The task of tests/benchmarks/sweep.py: sleeps, and says from when to when."""

import json
import math
import random
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(config_path=".", config_name="config")
def main(cfg: DictConfig) -> float:
    """Sleep as long as this job number sleeps."""
    start = time.time()
    draw = random.Random(HydraConfig.get().job.num)
    seconds = cfg.mean * math.exp(cfg.sigma * draw.gauss(0.0, 1.0))
    if draw.random() < cfg.short:
        seconds /= 5
    time.sleep(seconds)
    span = {"start": start, "end": time.time()}
    (Path(HydraConfig.get().runtime.output_dir) / "span.json").write_text(json.dumps(span))
    return float(cfg.x)


if __name__ == "__main__":
    main()
