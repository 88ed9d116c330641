"""Configurations that were loaded from a file, and may be a stranger's: read as plain data, rebuilt from exact names.

The configuration that a person composes is built by `catsweep.instantiation`. The `config.yaml` of a run's folder or a
bundle may be anybody's: nothing in it is resolved (`read`), and what `rebuild` makes of it opens, writes, fetches and
runs nothing that the project itself would not:

- **Names.** A node may name only what `conf/` names at its place: as `model` the models of `conf/model/`, within it
  what the groups have that these refer to (`${optimizer}`, `${loss.reconstruction}`). They are classes, or functions of
  a module; methods, such as Lightning's `load_from_checkpoint`, are neither.
- **Calls.** What `conf/` leaves to be called later (`_partial_`) is not called here, and of the keys that steer Hydra
  only `_target_`, `_partial_` and `_convert_` are known.
- **Arguments.** Numbers, and words without the punctuation of a path or an address. Where something is, and whether it
  may be fetched (`SETTLED`), is as `conf/` says.

`trust=[mypackage.*]` on the command line, and nowhere else, adds names for that command, with any arguments.
"""

import functools
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import hydra.utils
from omegaconf import OmegaConf

from catsweep.configuration import CONF
from catsweep.errors import CatsweepError, ConfigError, DataError
from catsweep.instantiation import TRUSTED, is_trusted, unimportable
from steady.safe_paths import require_regular

# What is rebuilt, and the group of `conf/`, or one option of it, whose names it may have. Of data only drawn cats: a
# ready set is found by its digest, and who wants photos read again says `trust=[catsweep.data.sources.Photos]`.
PLACES = {"model": "model", "metrics": "metrics", "data": "data/demo_cats"}
SETTLED = ("root", "cache_root", "weights", "download", "source", "subfolder", "revision")
STEERING = ("_target_", "_partial_", "_convert_")
CONVERSIONS = ("none", "partial", "object", "all")
WORD = re.compile(r"[\w+-]{0,64}", re.ASCII)
REFERENCE = re.compile(r"\$\{(\w+)((?:\.\w+)*)\}")  # to a group, or to a key of its options
GLOBAL = "# @package _global_"  # first line of an option that says more than its own node
LISTED = 10  # names that a message offers
# Modules that conf/ named in earlier releases, and what they are called now. In two parts, that no rewrite finds one.
MOVED = {"catsweep.data." + "prepare.operations": "catsweep.data.operations"}
LONGEST = 120  # characters of a stranger's text that a message repeats


def read(file: Path) -> dict[str, Any]:
    """Read a configuration file as nested dicts, lists and scalars.

    Raises:
        ConfigError: it cannot be read, is no mapping, or has interpolations (`${oc.env:…}`), which no run writes.
    """
    expected = f"Expected the configuration of a run in {file}"
    try:
        require_regular(file)
        found = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        asked = next((text for text in _texts(found) if "${" in text), None)
    except DataError as error:
        raise ConfigError(f"{expected}: {error}") from error
    except Exception as error:  # of the constructors of YAML's tags, nearly any
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{expected}, but: {type(error).__name__}: {said}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{expected}, keys and values; got a {type(found).__name__}.")
    if asked is not None:
        raise ConfigError(
            f"{expected}, with every value; {_short(asked)} would be looked up on this machine, and no run writes that."
        )
    return {str(key): moved(value) for key, value in found.items()}


def moved(value: Any) -> Any:
    """Replace the `_target_` of classes that have moved (`MOVED`) in a plain value of a stored configuration."""
    if isinstance(value, list):
        return [moved(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: moved(item) for key, item in value.items()}
    if isinstance(name := found.get("_target_"), str):
        module, _, attribute = name.rpartition(".")
        found["_target_"] = f"{MOVED[module]}.{attribute}" if module in MOVED else name
    return found


def rebuild(config: Mapping[str, Any], key: str) -> Any:
    """Build the object, or the factory where `conf/` has one, that the node `key` (of `PLACES`) names.

    Raises:
        ConfigError: there is no such node, it names or holds what no loaded configuration may, or it cannot be built.
    """
    node = config.get(key)
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"Expected a configuration that says what its {key} is; it has {_short(node)} there.")
    allowed = named(PLACES[key])
    name = node["_target_"]
    if node.get("_partial_") is True and isinstance(name, str) and allowed.names.get(name):
        raise ConfigError(f"{key} would be left to be called later; expected {name} without _partial_, as in conf/.")
    # Every name in it is one of these. Hydra also asks what the factories give each other, which is in these packages.
    names = (*TRUSTED, *allowed.names, *allowed.inner)
    try:
        return hydra.utils.instantiate(_checked(node, key, allowed.names, allowed), _execution_whitelist_=names)
    except CatsweepError:
        raise
    except Exception as error:  # of Hydra, or of whatever takes arguments that do not fit
        said = " ".join(str(error).partition("\n\n")[0].split())[:300]
        raise ConfigError(f"{key} cannot be built as the configuration says: {type(error).__name__}: {said}") from error


@dataclass(frozen=True)
class Allowed:
    """What loaded nodes of one kind may name; a target with whether `conf/` has it called at once somewhere."""

    names: dict[str, bool]  # targets of the node itself
    inner: dict[str, bool]  # targets of nodes within it
    settled: dict[str, Any]  # values of `SETTLED`


@functools.cache
def named(place: str, conf: Path = CONF) -> Allowed:
    """Collect what the options of a group of `conf/` name, or one of its options (`data/demo_cats`)."""
    found = Allowed({}, {}, {})
    for option in _options(place, conf):
        for depth, node in _nodes(option, conf):
            names = found.inner if depth else found.names
            if isinstance(name := node.get("_target_"), str):
                names[name] = names.get(name, False) or node.get("_partial_") is not True
            here = {key: node[key] for key in SETTLED if key in node}
            found.settled.update({key: value for key, value in here.items() if "${" not in str(value)})
    return found


def _options(place: str, conf: Path) -> list[Any]:
    """Load the nodes of a group's files, or of one file, and of what their defaults put into them."""
    one, group = conf / f"{place}.yaml", place.partition("/")[0]
    found = []
    for file in [one] if one.is_file() else sorted((conf / place).glob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        if file.read_text(encoding="utf-8").startswith(GLOBAL) and isinstance(content, dict):
            entries = [entry for entry in content.get("defaults") or () if isinstance(entry, dict)]
            inner = [name for entry in entries for name in entry.items() if name[0].startswith(f"/{group}/")]
            for name, choice in inner:  # such as /model/architecture
                part = OmegaConf.load(conf / name.lstrip("/") / f"{choice}.yaml")
                found.append(OmegaConf.to_container(part, resolve=False))
            content = content.get(group)
        found.append(content)
    return found


def _nodes(value: Any, conf: Path, depth: int = 0) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Yield each mapping in a value and in what it refers to, with its depth."""
    if isinstance(value, dict):
        yield depth, value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _nodes(item, conf, depth + 1)
    elif isinstance(value, str) and (found := REFERENCE.fullmatch(value)):
        for option in _options(found[1], conf):
            for part in found[2].split(".")[1:]:
                option = option.get(part) if isinstance(option, dict) else None
            yield from _nodes(option, conf, depth)


def _checked(value: Any, where: str, names: Mapping[str, bool], allowed: Allowed, own: bool = False) -> Any:
    """Copy a plain value of the key `where`, checked, with our `SETTLED`; `own`: of what the command line trusts."""
    if isinstance(value, list):
        return [_checked(item, f"{where}[{index}]", allowed.inner, allowed, own) for index, item in enumerate(value)]
    if isinstance(value, dict):
        if "_target_" in value:
            own = _require_named(value, where, names)
        if not own:
            _require_plain_keys(value, where)
            value = {key: allowed.settled.get(key, item) if key in SETTLED else item for key, item in value.items()}
        ours = {*STEERING, *(() if own else allowed.settled)}
        return {
            key: item if key in ours else _checked(item, f"{where}.{key}", allowed.inner, allowed, own)
            for key, item in value.items()
        }
    if isinstance(value, str) and ("${" in value or not (own or WORD.fullmatch(value))):
        raise ConfigError(
            f"{where} is {_short(value)}. In a configuration that was loaded it may be a number or a word, not a path, "
            "an address or a text."
        )
    if value is not None and not isinstance(value, str | int | float):  # a bool is an int
        raise ConfigError(f"{where} is of the type {type(value).__name__}; expected numbers, words, lists, mappings.")
    return value


def _require_named(node: Mapping[Any, Any], where: str, here: Mapping[str, bool]) -> bool:
    """Refuse what neither the command line trusts nor `conf/` has; tell whether it is the former."""
    name = node["_target_"]
    own = isinstance(name, str) and is_trusted(name)
    if not own and (not isinstance(name, str) or name not in here):
        nothing = "nothing" if CONF.is_dir() else f"nothing, for {CONF} is not there"
        options = ", ".join(sorted(here)[:LISTED]) or nothing
        more = f" and {len(here) - LISTED} more" if len(here) > LISTED else ""
        raise ConfigError(
            f"{where} names {_short(name)}. If it is code of your own, say so on the command line: "
            "'trust=[mypackage.*]'. Else a configuration that was loaded may name there what conf/ does: "
            f"{options}{more}."
        )
    if not own and not here[name] and node.get("_partial_") is not True:
        raise ConfigError(f"{where} would call {name} at once; expected _partial_: true, as in conf/.")
    try:
        found = pkgutil.resolve_name(name)
    except Exception as error:  # whatever a module does when it is imported
        said = f"{where} names {_short(name)}, which cannot be found: {error}."
        raise ConfigError(f"{said} {unimportable(name)}".strip()) from error
    if not isinstance(found, type) and not (isinstance(found, FunctionType) and "." not in found.__qualname__):
        raise ConfigError(f"{where} names {_short(name)}; expected a class or a function of a module, not a method.")
    return own


def _require_plain_keys(node: Mapping[Any, Any], where: str) -> None:
    for key in node:
        if not isinstance(key, str) or (re.fullmatch(r"_\w*_", key) and key not in STEERING):
            raise ConfigError(f"{where} has the key {_short(key)}; expected names of arguments.")
    if "_partial_" in node and not isinstance(node["_partial_"], bool):
        raise ConfigError(f"{where}._partial_ is {_short(node['_partial_'])}; expected true or false.")
    if "_convert_" in node and node["_convert_"] not in CONVERSIONS:
        raise ConfigError(
            f"{where}._convert_ is {_short(node['_convert_'])}; expected one of {', '.join(CONVERSIONS)}."
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in (*value, *value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _texts(item)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
