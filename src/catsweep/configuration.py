"""Checks that the parts of a composed configuration fit together, before anything slow is built.

Hydra has checked that options exist, and by `catsweep.schema` each value. A model checks its own settings, by optional
class methods: `check_config(cfg)`, `check_photos(cfg, photos)`, `complete_config(cfg)`, `ignored_groups(model)`; and
`own_parts` says what it has in place of a group. Known here are the groups it refers to (`${loss.reconstruction}`).
"""

import pkgutil
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from catsweep.errors import ConfigError
from catsweep.instantiation import TRUSTED, is_trusted

CONF = Path(__file__).parents[2] / "conf"
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
# Groups for the model: chosen by name, one that it does not read would change nothing, silently.
OF_THE_MODEL = ("depth", "width", "block", "normalization", "activation", "loss", "discriminator")


def losses_for(kind: str, conf: Path = CONF) -> list[str]:
    """List the options of the group `loss` that have a loss of a kind, `reconstruction` or `adversarial`."""
    return sorted(file.stem for file in (conf / "loss").glob("*.yaml") if kind in OmegaConf.load(file))


def check_loss(cfg: DictConfig) -> None:
    """Refuse a loss without the kind that the model refers to."""
    for kind in re.findall(r"\$\{loss\.(\w+)", _model_text(cfg)):
        if kind not in cfg.loss:
            raise ConfigError(
                f"{_model_name(cfg)} learns from {'an' if kind[0] in 'aeiou' else 'a'} {kind} loss; the chosen loss is "
                f"{' and '.join(cfg.loss)} only. Choose loss= from: {', '.join(losses_for(kind))}."
            )


def check_judge(cfg: DictConfig) -> None:
    """Refuse a loss, or a discriminator, that looks through the network that the scores are taken in.

    What is trained on its judge's features learns to please the judge, see `catsweep.losses.frozen_features`. Networks
    (`network: NAME`) are compared by name, extractors by their class (`EfficientNetLite0`).
    """
    extractor = str(OmegaConf.select(cfg, "metrics.extractor._target_")).rsplit(".", 1)[-1]
    for key, node in _used_nodes(cfg, "${model}"):
        network, what = node.get("network"), "loss" if key.startswith("loss.") else "discriminator"
        if network is not None and str(network).replace("_", "").lower() == extractor.lower():
            raise ConfigError(
                f"A {what} may not look through the network that judges the images: {key}.network={network} is the "
                f"metric's extractor, {extractor}, whose score would then say nothing. Leave the {what} its own "
                "network (efficientnet_lite1), or score with another: metrics=inception."
            )


def _used_nodes(cfg: DictConfig, node: Any, key: str = "") -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield a mapping, those in it and those that they refer to, each with its key; none that has `weight: 0`."""
    if isinstance(node, str) and (found := REFERENCE.fullmatch(node)):
        key, node = found[1], OmegaConf.select(cfg, found[1])
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, dict) and node.get("weight") != 0:
        yield key, node
        for name, inner in node.items():
            yield from _used_nodes(cfg, inner, f"{key}.{name}")


def _model_class(cfg: DictConfig) -> Any:
    """Get the class of the model; None if it may not be named or is not found, as `instantiate` explains."""
    name = str(cfg.model._target_)
    if not (is_trusted(name) or any(name.startswith(package.rstrip("*")) for package in TRUSTED)):
        return None
    try:
        return pkgutil.resolve_name(name)
    except Exception:  # whatever a module does when it is imported
        return None


def _model_name(cfg: DictConfig) -> str:
    return str(cfg.model._target_).rsplit(".", 1)[-1]


def _model_text(cfg: DictConfig) -> str:
    return str(OmegaConf.to_container(cfg.model, resolve=False))


def _ask_model(cfg: DictConfig, method: str, *arguments: Any) -> None:
    if own := getattr(_model_class(cfg), method, None):
        own(cfg, *arguments)


def check_model(cfg: DictConfig) -> None:
    """Let the model check its settings."""
    _ask_model(cfg, "check_config")


def check_photos(cfg: DictConfig, photos: int) -> None:
    """Let the model check the number of photos that there are to train on."""
    _ask_model(cfg, "check_photos", photos)


def complete(cfg: DictConfig) -> None:
    """Let the model write into a configuration what it takes from elsewhere, so that it can be built from it alone.

    Raises:
        CatsweepError: the source of a pretrained model cannot be read, or is none.
    """
    _ask_model(cfg, "complete_config")


def check_groups(cfg: DictConfig) -> None:
    """Refuse options of the command line, or of a sweep, that the model does not read."""
    chosen = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    names = [name for name in OF_THE_MODEL if any(re.match(rf"\+*{name}=", word) for word in chosen)]
    read = set(re.findall(r"\$\{(\w+)", _model_text(cfg)))
    if not read:  # resolved before: it no longer says where its values came from
        return
    model = _model_class(cfg)
    ignored: dict[str, str] = getattr(model, "ignored_groups", lambda model: {})(cfg.model)
    read, without = read - ignored.keys(), "".join(f" with {setting}" for setting in ignored.values())
    if unread := [name for name in names if name not in read]:
        words = [word for word in chosen if word.partition("=")[0].lstrip("+") in unread]
        instead = " ".join(filter(None, map(getattr(model, "own_parts", {}).get, unread)))
        raise ConfigError(
            f"{_model_name(cfg)}{without} takes nothing from {', '.join(unread)}, so {' '.join(words)} would change "
            f"nothing. Leave it out, and do not search it. {instead}".rstrip()
        )


def check_objective(cfg: DictConfig, names: Collection[str]) -> None:
    """Refuse an objective that is none of the scores that there will be."""
    if not cfg.objective or (missing := [name for name in cfg.objective if name not in names]):
        raise ConfigError(
            f"objective must name scores of this model and data, of {', '.join(names)}; "
            f"got {list(cfg.objective)}{f', where {missing} is not one of them' if cfg.objective else ''}."
        )


def check_rungs(cfg: DictConfig, metrics: Collection[str], taken: Collection[str], steps: Sequence[int] = ()) -> None:
    """Refuse to judge by `metrics` that are not among the scores `taken` at rungs, or without a rung.

    `steps` are the rungs of a promotion, which take the place of the configuration's.
    """
    if steps and not steps[0]:
        raise ConfigError(
            "The rungs of hydra.sweeper.promotion are in the unit of the last, which is the whole budget: each is more "
            f"than 0, such as [1, 3, 9] for a ninth and a third; got {list(steps)}."
        )
    if steps and cfg.minutes is None and cfg.samples is None:  # scores are taken when an epoch ends
        ends = [-(-step * cfg.epochs // steps[-1]) for step in steps]  # rounded up
        if len(set(ends)) < len(ends):
            raise ConfigError(
                f"The rungs {list(steps)} of hydra.sweeper.promotion need a training of so many epochs that each ends "
                f"another; with epochs={cfg.epochs} they come after {', '.join(map(str, ends))}. Take more epochs "
                f"({steps[-1]} are enough), or fewer rungs."
            )
    if metrics and not steps and not cfg.rungs:
        raise ConfigError(
            "Pruning needs rungs, shares of the budget such as [0.25, 0.5]; got none. "
            "Set some, or hydra.sweeper.pruner=null."
        )
    if missing := [name for name in metrics if name not in taken]:
        raise ConfigError(
            f"hydra.sweeper.prune_metric must name a score taken during training, of "
            f"{', '.join(taken)}; got {', '.join(missing)}."
        )


def check_budget(cfg: DictConfig) -> None:
    """Refuse a budget of which a part would bind nothing."""
    if cfg.budget_unit == "samples":
        if cfg.samples is None or cfg.minutes is not None:
            raise ConfigError(
                "budget_unit=samples ends a run by the images that it has trained on, and by no time: it needs "
                f"minutes=null samples=60000, for example; got minutes={_shown(cfg.minutes)} "
                f"samples={_shown(cfg.samples)}."
            )
    elif cfg.samples is not None:
        raise ConfigError(
            f"samples={cfg.samples} would bind nothing with budget_unit={_shown(cfg.budget_unit)}: add "
            "budget_unit=samples minutes=null, or leave samples out."
        )
    elif cfg.budget_unit == "cpu_seconds" and cfg.minutes is None:
        raise ConfigError("budget_unit=cpu_seconds says what `minutes` are of; add them, for example minutes=10.")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def check(cfg: DictConfig) -> None:
    """Refuse a configuration of `conf/train.yaml` that cannot mean anything.

    Raises:
        ConfigError: saying what was expected, what came, and which choices there are.
    """
    check_groups(cfg)
    check_budget(cfg)
    check_loss(cfg)
    check_judge(cfg)
    check_model(cfg)
