"""Nodes of a configuration that refuse invalid values.

Hydra merges files and overrides into them, so it refuses a value when it composes, with the name of the key. A value by
interpolation is checked when it is read, and by `faults` before a command begins. The nodes stand in plain containers,
not in dataclasses, which refuse the keys that an option of the user's own adds.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from omegaconf import MISSING, Container, DictConfig, ListConfig, Node, OmegaConf, ValueNode
from omegaconf.base import Metadata
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, ValidationError

from catsweep.schema.kinds import Kind, Several, interpolated

C = TypeVar("C", bound=BaseContainer)


class Value(ValueNode):
    """A scalar node that refuses values of another kind, and None unless `null`."""

    kind: Kind

    def __init__(self, kind: Kind, null: bool = False) -> None:
        self.__dict__["kind"] = kind
        metadata = Metadata(ref_type=object, object_type=object, optional=null, key=None)
        super().__init__(parent=None, value=MISSING, metadata=metadata)

    def validate_and_convert(self, value: Any) -> Any:
        """Convert a value; a ValidationError says what is expected and what came."""
        return _taken(self, value)

    _validate_and_convert_impl = validate_and_convert

    def __deepcopy__(self, memo: dict[int, Any]) -> "Value":
        copy = Value(self.kind)
        self._deepcopy_impl(copy, memo)
        return copy


class Values(ListConfig):
    """A list node that refuses values of another kind, as a whole and one by one, and None unless `null`."""

    kind: Several

    def __init__(self, kind: Several, null: bool = False) -> None:
        self.__dict__["kind"] = kind
        super().__init__(MISSING, ref_type=list[Any], is_optional=null)

    def append(self, item: Any) -> None:
        """Append an item, and check the list."""
        super().append(item)
        if not self.__dict__.get("filled", False):
            self._check()

    def _set_value(self, value: Any, flags: dict[str, bool] | None = None) -> None:
        plain = _plain(value)
        if not interpolated(plain) and plain != MISSING:
            _taken(self, plain)
        self.__dict__["filled"] = True  # one by one, until it is whole
        try:
            super()._set_value(value, flags)
        finally:
            del self.__dict__["filled"]
        self._check()

    def _merge_with(self, *others: Any, **options: Any) -> None:
        super()._merge_with(*others, **options)
        self._check()

    def _check(self) -> None:
        if self._is_missing() or self._is_interpolation():
            return
        plain = None if self._is_none() else _plain(self)
        for place, (kept, came) in enumerate(zip(_taken(self, plain) or [], plain or [], strict=True)):
            if type(kept) is not type(came):  # a number for text, or in quotes: its users get what the kind says
                self._set_item_impl(place, kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Values":
        return _same(Values(self.kind), super().__deepcopy__(memo))


class Branch(DictConfig):
    """A mapping node that no value may replace; of any keys beside `keys`."""

    def __init__(self, keys: dict[str, Any] | None = None, null: bool = False) -> None:
        super().__init__(MISSING if keys is None else keys, is_optional=null)

    def _has_ref_type(self) -> bool:
        return True  # so that what is assigned comes to `_set_value`, instead of replacing this

    def _set_value(self, value: Any, flags: dict[str, bool] | None = None) -> None:
        plain = _plain(value)
        if not (isinstance(plain, Mapping) or interpolated(plain) or plain == MISSING):
            _no_branch(self, plain)
        super()._set_value(value, flags)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Branch":
        return _same(Branch(), super().__deepcopy__(memo))


def faults(config: DictConfig, final: bool = False) -> list[str]:
    """List the faults of values that Hydra could not check: missing ones, and those by interpolation.

    One that leads nowhere is a fault if `final`: in a job, where nothing changes any more.
    """
    said: dict[str, str] = {}
    for node in _typed(config):
        key = _key(node)
        if node._is_missing():
            said[key] = f"{key} must be {_said(node)}; got ??? (nothing)."
        elif node._is_interpolation() or isinstance(node, Values):  # in a list there may be some
            told = _fault(config, key, node, final)
            if told:  # once, if others are interpolated from this one
                said.setdefault(told, told if f"{key} must be " in told else f"{key}: {told}")
    return list(said.values())


def has_schema(config: DictConfig) -> bool:
    """Tell whether any key of a configuration has a schema."""
    return next(_typed(config), None) is not None


def knows(config: DictConfig, key: str) -> bool:
    """Tell whether a configuration has a key."""
    return _node(config, key) is not None


def refusal(config: DictConfig, key: str, value: Any) -> str | None:
    """Explain why a configuration does not take a value for a key; None if it does, or the key has no schema."""
    node = _node(config, key)
    if not isinstance(node, Value | Values) or interpolated(value):
        return None
    try:
        _taken(node, value)
    except ValidationError as error:
        return str(error)
    return None


def _node(config: DictConfig, key: str) -> Any:
    try:
        return config._select_impl(key, throw_on_missing=False, throw_on_resolution_failure=False)[2]
    except (OmegaConfBaseException, TypeError):  # beneath a value, or a list
        return None


def _typed(config: DictConfig) -> Iterator[Value | Values | Branch]:
    """Iterate over the nodes of a configuration that have a schema."""
    waiting: list[Any] = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Value | Values | Branch):
            yield node
        if isinstance(node, DictConfig) and isinstance(node._content, dict):
            waiting += reversed(list(node._content.values()))


def _fault(config: DictConfig, key: str, node: Value | Values | Branch, final: bool) -> str | None:
    try:
        value = OmegaConf.select(config, key)  # of another type than the node's: refused by OmegaConf
        if isinstance(node, Branch) and not isinstance(value, DictConfig):
            _no_branch(node, _plain(value))
        elif isinstance(node, Values):
            _taken(node, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
    except (ValidationError, InterpolationResolutionError) as error:
        # `configuration.check` says more of a node that is not there, the loss of another model.
        if not isinstance(error, ValidationError) and (not final or isinstance(node, Branch)):
            return None
        return str(error).partition("\n")[0]
    return None


def _no_branch(node: Branch, value: Any) -> None:
    if value is not None or not node._is_optional():
        raise ValidationError(f"{_key(node)} must be a node with keys of its own{_or_null(node)}; got {_shown(value)}.")


def _taken(node: Value | Values, value: Any) -> Any:
    if value is None and node._is_optional():
        return None
    try:
        return node.kind.take(value)
    except (ValueError, OverflowError):
        raise ValidationError(f"{_key(node)} must be {_said(node)}; got {_shown(value)}.") from None


def _same(copy: C, of: Container) -> C:
    """Give a copy of a container its content, too."""
    copy.__dict__.update({key: value for key, value in of.__dict__.items() if key != "kind"})
    copy._re_parent()
    return copy


def _key(node: Node) -> str:
    return node._get_full_key(None) or "A value"


def _said(node: Value | Values | Branch) -> str:
    return f"{'a node' if isinstance(node, Branch) else node.kind}{_or_null(node)}"


def _or_null(node: Node) -> str:
    return ", or null" if node._is_optional() else ""


def _shown(value: Any) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


def _plain(value: Any) -> Any:
    """Convert a node to a plain value, list or dict, with interpolations as they are written."""
    if not isinstance(value, Container):
        return value._value() if isinstance(value, Node) else value
    if value._is_interpolation() or value._is_none() or value._is_missing():
        return value._value()
    return OmegaConf.to_container(value, resolve=False)
