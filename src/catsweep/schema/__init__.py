"""Types and ranges of every key in `conf/`, by which Hydra itself refuses a wrong value.

`conf/` has the values and explains them; a file there names its schema in its defaults, `/schema_NAME@_here_`.
`hydra_plugins.catsweep_schema.registration`, which Hydra imports at each start, registers them.
"""

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from catsweep.schema import keys, nodes
from catsweep.schema.nodes import knows, refusal
from catsweep.schema.noted import unknown_constraints

__all__ = ["faults", "knows", "refusal", "register"]


def faults(config: DictConfig, final: bool = False) -> list[str]:
    """List the faults that Hydra could not find, see `nodes.faults`; also of a sweep's constraints."""
    ours = nodes.has_schema(config)  # of another app's trials we do not know what they note
    return [*nodes.faults(config, final), *(unknown_constraints(config) if ours else [])]


def register() -> None:
    """Register the schemas with Hydra, under names of no group, so that no list of options has them."""
    store = ConfigStore.instance()
    for name, node in {**keys.COMMANDS, **keys.GROUPS}.items():
        store.store(name=f"schema_{name}", node=node, provider="catsweep")
