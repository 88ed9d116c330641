"""Registration of a schema of the task's configuration, which steady asks before a sweep begins.

Hydra refuses values by structured configs when it composes. An app that checks more (ranges, choices, values that come
by interpolation) registers an object here, and values of the searched space are checked with it too. Light: imported at
each start of Hydra.
"""

from typing import Any, Protocol

from omegaconf import DictConfig


class Schema(Protocol):
    """An object that knows the values of a configuration."""

    def knows(self, config: DictConfig, key: str) -> bool:
        """Tell whether there is anything to say of a key."""

    def refusal(self, config: DictConfig, key: str, value: Any) -> str | None:
        """Say why a key does not take a value; None if it does."""

    def faults(self, config: DictConfig) -> list[str]:
        """List what is wrong with a composed configuration."""


class _Anything:
    """The schema of an app that has none."""

    def knows(self, config: DictConfig, key: str) -> bool:
        return False

    def refusal(self, config: DictConfig, key: str, value: Any) -> str | None:
        return None

    def faults(self, config: DictConfig) -> list[str]:
        return []


_registered: Schema = _Anything()


def register(schema: Schema) -> None:
    """Make steady ask a schema from now on, in place of an earlier one.

    Example:
        >>> register(registered())
    """
    global _registered
    _registered = schema


def registered() -> Schema:
    """Get the schema of the app; one that knows no key if it has registered none.

    Example:
        >>> from omegaconf import OmegaConf
        >>> registered().faults(OmegaConf.create({}))
        []
    """
    return _registered
