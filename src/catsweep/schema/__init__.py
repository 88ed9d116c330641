"""Types and ranges of every key in `conf/`, by which Hydra itself refuses a wrong value.

`conf/` has the values and explains them; a file there names its schema in its defaults, `/schema_NAME@_here_`.
`hydra_plugins.steady_sweeper.config` registers them, which Hydra reads at each start.
"""

from hydra.core.config_store import ConfigStore

from catsweep.schema import keys
from catsweep.schema.nodes import faults, knows, refusal

__all__ = ["faults", "knows", "refusal", "register"]


def register() -> None:
    """Register the schemas with Hydra, under names of no group, so that no list of options has them."""
    store = ConfigStore.instance()
    for name, node in {**keys.COMMANDS, **keys.GROUPS}.items():
        store.store(name=f"schema_{name}", node=node, provider="catsweep")
