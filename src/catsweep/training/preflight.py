"""Prepare and check what all trials of a sweep share, once before the first one.

`hydra.sweeper.preflight` names `facts`; the sweep runs it as a job of its own. Its result is part of the study's
contract, so a study never mixes trials on different photos, or scores that cannot be compared. It makes the ready set
and the reference statistics, which otherwise every slot would begin to make at once, and tries each option of the
space once (`catsweep.training.fast_dev_run`), so that what cannot run costs no trial.
"""

from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from catsweep.errors import ConfigError

if TYPE_CHECKING:
    from steady.propose.covering import Examples


def facts(cfg: DictConfig, examples: "Examples | None" = None) -> dict[str, Any]:
    """Prepare the data and the scorer of a configuration, describe them, and try what is searched (`examples`).

    Returns:
        `data`, the ready set's digest, and `cards`, the metric card of each objective without versions of libraries.

    Raises:
        CatsweepError: the data, the metrics, or some of what is searched cannot be used; all faults at once.
    """
    # Here, because the controller of a sweep imports this module, and is to be without torch.
    from catsweep import configuration
    from catsweep.instantiation import instantiate
    from catsweep.judging import factory
    from catsweep.training.fast_dev_run import FastDevRun

    factory(cfg)  # a judge's file that is not there shows before anything is tried
    scoring = instantiate(cfg.metrics)
    if examples is not None:
        attempt = FastDevRun(*_sweep_settings(), elsewhere=examples.elsewhere)
        if wrong := examples.problems(attempt.problems):
            raise ConfigError("No trial could run with:\n" + "\n".join(f"  {line}" for line in wrong))
    configuration.check(cfg)
    data = instantiate(cfg.data)
    data.prepare_data()
    scorer = scoring(ready=data.ready)
    # Without versions: a newer library may round elsewhere, but two machines that drive one study need not be twins.
    cards = {name: scorer.card(name).to_dict() for name in cfg.objective}
    for card in cards.values():
        card.pop("versions", None)
    return {"data": data.ready.digest, "cards": cards}


def _sweep_settings() -> tuple[list[str], int | None, list[int]]:
    """Read the scores that the sweep judges by at rungs, its number of objectives, and the rungs of its promotion.

    None of them outside a sweep.
    """
    if not HydraConfig.initialized() or "direction" not in (sweeper := HydraConfig.get().sweeper):
        return [], None, []
    promotion = sweeper.get("promotion")
    judged = (sweeper.pruner is not None or promotion is not None) and sweeper.prune_metric is not None
    metrics = sweeper.prune_metric if judged else []
    directions = sweeper.direction
    return (
        [metrics] if isinstance(metrics, str) else list(metrics),
        1 if isinstance(directions, str) else len(directions),
        [] if promotion is None else list(promotion.rungs),
    )
