"""From `_target_` nodes to objects, for trusted targets only.

Hydra's `instantiate` calls whatever a configuration names, and a configuration may come from somebody else's run
folder or bundle. So only these packages may be named. One's own package is added on the command line, by
`trust=[mypackage.*]` (see `catsweep.commands.guard`), never by the configuration that is loaded.
"""

from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from catsweep.errors import ConfigError

TRUSTED = ("catsweep.*", "torch.nn.*", "torch.optim.*", "pytorch_lightning.*", "pytorch_optimizer.*", "kornia.*")


def instantiate(node: Any, **kwargs: Any) -> Any:
    """Build what a node names, see `hydra.utils.instantiate`.

    Args:
        node: a mapping with `_target_`, and the arguments of that target.
        **kwargs: further arguments, which override the node's.

    Raises:
        ConfigError: a target is not trusted, or cannot be found. What a target itself raises passes through.
    """
    try:
        return hydra.utils.instantiate(node, _execution_whitelist_=TRUSTED, **kwargs)
    except InstantiationException as error:
        # Hydra's message first names the target and then quotes its own manual at length.
        said = str(error).partition("\n\n")[0]
        raise ConfigError(
            f"A configuration may name targets of {', '.join(TRUSTED)} and of the packages in trust=[…]. {said}"
        ) from error
