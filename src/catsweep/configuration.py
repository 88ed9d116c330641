"""Whether a composed configuration makes sense, told before anything slow is imported or built.

Hydra checks that options exist, and by `catsweep.schema` that each value is of its kind; this checks that they fit
together. Every message names the choices that do.
"""

import pkgutil
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from catsweep.errors import ConfigError
from catsweep.instantiation import TRUSTED, is_trusted

CONF = Path(__file__).parents[2] / "conf"
LOSS_KINDS = ("reconstruction", "adversarial")
# Groups that are there for the model: chosen by name, one that it does not read would change nothing, silently.
OF_THE_MODEL = ("depth", "width", "block", "normalization", "activation", "loss", "discriminator")


def losses_for(kind: str, conf: Path = CONF) -> list[str]:
    """Names of the options of the group `loss` that hold a loss of this kind."""
    return sorted(file.stem for file in (conf / "loss").glob("*.yaml") if kind in OmegaConf.load(file))


def check_loss(cfg: DictConfig) -> None:
    """Refuse a loss that the model has no use for.

    A model's config says which kind it needs by the key `reconstruction_loss` or `adversarial_loss`.

    Raises:
        ConfigError: the chosen loss has no such kind.
    """
    for kind in LOSS_KINDS:
        if f"{kind}_loss" in cfg.model and kind not in cfg.loss:
            model = str(cfg.model._target_).rsplit(".", 1)[-1]
            raise ConfigError(
                f"{model} learns from {'an' if kind[0] in 'aeiou' else 'a'} {kind} loss; the chosen loss is "
                f"{' and '.join(cfg.loss)} only. Choose loss= from: {', '.join(losses_for(kind))}."
            )


def check_judge(cfg: DictConfig) -> None:
    """Refuse a loss, or a discriminator, that looks through the network that the scores are taken in.

    What is trained on its judge's features learns to please the judge, see `catsweep.losses.frozen_features`. Networks
    are told apart by their names, and those of extractors by their class (`EfficientNetLite0`).

    Raises:
        ConfigError: saying which other there is.
    """
    extractor = str(OmegaConf.select(cfg, "metrics.extractor._target_")).rsplit(".", 1)[-1]
    keys = [("loss", "loss.reconstruction.network"), ("discriminator", "model.discriminator.network")]
    if OmegaConf.select(cfg, "model.adversarial.weight"):
        keys.append(("discriminator", "model.adversarial.discriminator.network"))
    for what, key in keys:
        network = OmegaConf.select(cfg, key)
        if network is not None and str(network).replace("_", "").lower() == extractor.lower():
            shown = re.sub("^model.discriminator", "discriminator", key)  # the group that it comes from
            raise ConfigError(
                f"A {what} may not look through the network that judges the images: {shown}={network} is the "
                f"metric's extractor, {extractor}, whose score would then say nothing. Leave the {what} its own "
                "network (efficientnet_lite1), or score with another: metrics=inception."
            )


def model_class(cfg: DictConfig) -> Any:
    """The class of a configuration's model; None if it may not be named or is not found, as `instantiate` explains."""
    name = str(cfg.model._target_)
    if not (is_trusted(name) or any(name.startswith(package.rstrip("*")) for package in TRUSTED)):
        return None
    try:
        return pkgutil.resolve_name(name)
    except Exception:  # whatever a module does when it is imported
        return None


def check_model(cfg: DictConfig) -> None:
    """Let the model's class check its configuration, if it has a `check_config`.

    Raises:
        ConfigError: from that.
    """
    if own := getattr(model_class(cfg), "check_config", None):
        own(cfg)


def check_groups(cfg: DictConfig) -> None:
    """Refuse options of the command line, or of a sweep, that the model does not read.

    Raises:
        ConfigError: naming them.
    """
    chosen = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    names = [name for name in OF_THE_MODEL if any(re.match(rf"\+*{name}=", word) for word in chosen)]
    read = set(re.findall(r"\$\{(\w+)", str(OmegaConf.to_container(cfg.model, resolve=False))))
    if not read:  # resolved before: it no longer says where its values came from
        return
    ignored: dict[str, str] = getattr(model_class(cfg), "ignored_groups", lambda model: {})(cfg.model)
    read, without = read - ignored.keys(), "".join(f" with {setting}" for setting in ignored.values())
    if unread := [name for name in names if name not in read]:
        model = str(cfg.model._target_).rsplit(".", 1)[-1]
        words = [word for word in chosen if word.partition("=")[0].lstrip("+") in unread]
        own = "discriminator" in unread and "adversarial" in cfg.model
        raise ConfigError(
            f"{model}{without} takes nothing from {', '.join(unread)}, so {' '.join(words)} would change nothing. "
            "Leave it out, and do not search it."
            + (" It has a discriminator of its own: model.adversarial.weight=6." if own else "")
        )


def check_batch(cfg: DictConfig, photos: int | None = None) -> None:
    """Refuse batches of one image where a network ends as a single cell, and normalizes it over the batch.

    Mean and deviation are then those of one number per channel, which torch refuses in the first step.

    Args:
        cfg: of a run.
        photos: that there are to train on, once they are known; a batch has no more.

    Raises:
        ConfigError: saying what there is instead.
    """
    size, halvings = cfg.model.get("image_size"), cfg.model.get("halvings")
    normalization = str(OmegaConf.select(cfg, "model.normalization._target_"))
    if type(halvings) is not int or size != 2**halvings or not normalization.endswith("BatchNorm2d"):
        return
    if photos == 1:
        batches, more = "batches of the 1 photo that there is to train on", "Add photos"
    elif cfg.data.batch_size == 1:
        batches, more = "data.batch_size=1", "Set data.batch_size=2 or more"
    else:
        return
    raise ConfigError(
        f"A network that ends as a single cell (data.size={size}, depth.halvings={halvings}) cannot be normalized over "
        f"{batches}. {more}, or normalization=group{f', or depth.halvings={halvings - 1}' if halvings > 1 else ''}."
    )


def check_objective(cfg: DictConfig, names: Collection[str]) -> None:
    """Refuse an objective that will not be scored.

    Args:
        cfg: of a run.
        names: of the scores that there will be.

    Raises:
        ConfigError: naming the scores there will be.
    """
    if not cfg.objective or (missing := [name for name in cfg.objective if name not in names]):
        raise ConfigError(
            f"objective must name scores of this model and data, of {', '.join(names)}; "
            f"got {list(cfg.objective)}{f', where {missing} is not one of them' if cfg.objective else ''}."
        )


def check_rungs(cfg: DictConfig, metrics: Collection[str], taken: Collection[str]) -> None:
    """Refuse to prune by a score that is not taken during training.

    Args:
        cfg: of a run.
        metrics: names of the scores that its study prunes by.
        taken: names of the scores that are taken at rungs.

    Raises:
        ConfigError: naming the scores that are taken; or there is no rung to take one at.
    """
    if metrics and not cfg.rungs:
        raise ConfigError(
            "Pruning needs rungs, shares of the budget such as [0.25, 0.5]; got none. "
            "Set some, or hydra.sweeper.pruner=null."
        )
    if missing := [name for name in metrics if name not in taken]:
        raise ConfigError(
            f"hydra.sweeper.prune_metric must name a score taken during training, of "
            f"{', '.join(taken)}; got {', '.join(missing)}."
        )


def check(cfg: DictConfig) -> None:
    """Refuse a configuration of `conf/train.yaml` that cannot mean anything.

    Raises:
        ConfigError: saying what was expected, what came, and which choices there are.
    """
    check_groups(cfg)
    check_loss(cfg)
    check_judge(cfg)
    check_model(cfg)
    check_batch(cfg)


def complete(cfg: DictConfig) -> None:
    """Write into a configuration what it takes from elsewhere, so that it is enough to build the model again.

    That is what its model's `complete_config` does: the architecture of a pretrained one. Others are complete.

    Raises:
        CatsweepError: the model's source cannot be read, or is none.
    """
    if own := getattr(model_class(cfg), "complete_config", None):
        own(cfg)
