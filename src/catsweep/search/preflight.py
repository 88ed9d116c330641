"""What must be known, and made, once before the first trial: the data, its digest, and how scores are taken.

`catsweep.search.sweep` runs `facts` as a job of its own, in a process of its own. What it returns becomes part of the
study's contract, so that a study never mixes trials on different photos, or scores that cannot be compared. It also
makes the ready set and the reference statistics, which otherwise every slot would begin to make at once.
"""

from typing import Any

from omegaconf import DictConfig


def facts(cfg: DictConfig) -> dict[str, Any]:
    """Prepare the data and the scorer of a configuration, and say what they are.

    Args:
        cfg: composed from `conf/train.yaml`, without the searched parameters.

    Returns:
        `data`: the ready set's digest; `cards`: by score, its metric card, without the versions of libraries.

    Raises:
        CatsweepError: the data or the metrics cannot be used; no trial could have run either.
    """
    from catsweep import configuration
    from catsweep.data.datamodule import CatDataModule
    from catsweep.instantiation import instantiate
    from catsweep.metrics.scorer import Scorer

    configuration.check(cfg)
    data: CatDataModule = instantiate(cfg.data)
    data.prepare_data()
    scorer: Scorer = instantiate(cfg.metrics)(ready=data.ready)
    cards = {name: scorer.card(name).to_dict() for name in cfg.objective}
    for card in cards.values():
        # A newer library may round elsewhere, but two machines that drive one study need not be twins.
        card.pop("versions", None)
    return {"data": data.ready.digest, "cards": cards}
