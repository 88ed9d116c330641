"""From `_target_` nodes to objects, for trusted targets only.

Hydra's `instantiate` calls whatever a configuration names, and a configuration may come from somebody else's run
folder or bundle. So only these packages may be named. One's own package is added on the command line, by
`trust=[mypackage.*]` (see `catsweep.commands.guard`), never by the configuration that is loaded.
"""

from typing import Any

import hydra.utils

TRUSTED = ("catsweep.*", "torch.nn.*", "torch.optim.*", "pytorch_lightning.*", "pytorch_optimizer.*", "kornia.*")


def instantiate(node: Any, **kwargs: Any) -> Any:
    """Build what a node names, see `hydra.utils.instantiate`.

    Args:
        node: a mapping with `_target_`, and the arguments of that target.
        **kwargs: further arguments, which override the node's.

    Raises:
        hydra.errors.InstantiationException: the target is not trusted, cannot be found, or refuses its arguments.
    """
    return hydra.utils.instantiate(node, _execution_whitelist_=TRUSTED, **kwargs)
