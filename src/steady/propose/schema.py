"""Registration of an app's own checks of its configuration, which also check the values of the searched space.

For ranges, choices and values by interpolation, which Hydra's structured configs do not check. Imported at each start
of Hydra, so light.
"""

from typing import Any, Protocol

from omegaconf import DictConfig


class Schema(Protocol):
    """Checks of a configuration; by default none."""

    def knows(self, config: DictConfig, key: str) -> bool:
        """Tell whether a key is checked."""
        return False

    def refusal(self, config: DictConfig, key: str, value: Any) -> str | None:
        """Explain why a key does not take a value; None if it does."""
        return None

    def faults(self, config: DictConfig) -> list[str]:
        """List what is wrong with a composed configuration."""
        return []


class _NoChecks(Schema):
    pass


_registered: Schema = _NoChecks()


def register(schema: Schema) -> None:
    """Set the checks of the app, in place of earlier ones.

    >>> register(registered())
    """
    global _registered
    _registered = schema


def registered() -> Schema:
    """Get the checks of the app.

    >>> from omegaconf import OmegaConf
    >>> registered().faults(OmegaConf.create({}))
    []
    """
    return _registered
