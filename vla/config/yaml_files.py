"""Reading YAML files: inheritance by ``base:``, merging of slots, ``key=value`` overrides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vla.config.registry import nearest
from vla.errors import ConfigError

Paths = frozenset[tuple[str, ...]]


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file, merged over its ``base:`` file, as a plain mapping.

    Raises:
        ConfigError: no such file, invalid YAML, or a circular ``base:``.
    """
    return OmegaConf.to_container(load(path))  # type: ignore[return-value]


def load(path: Path, whole: Paths = frozenset(), above: tuple[Path, ...] = ()) -> Any:
    """One YAML file merged over its base, as an OmegaConf mapping.

    Args:
        whole: see ``merge``.
        above: the files that have this one as their base.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give a YAML file")
    if not path.is_file():
        choices = (p.stem for p in path.parent.glob("*.yaml"))
        raise ConfigError(f"{path}: no such configuration{nearest(path.stem, choices)}")
    if path.resolve() in above:
        raise ConfigError(f"{path}: base: circular reference; remove one of the base: lines")
    own = _parsed(path)
    base = own.pop("base", None)
    if base is None:
        return own
    return merge(load(path.parent / str(base), whole, (*above, path.resolve())), own, whole)


def _parsed(path: Path) -> Any:
    """The mapping in a YAML file; ConfigError with the line of the first problem."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a text file in UTF-8 (byte {error.start}); "
            "give a YAML file, or save it again with this encoding"
        ) from error
    try:
        own = OmegaConf.create(text) if text.strip() else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        line = text.splitlines()[mark.line] if mark and mark.line < text.count("\n") else ""
        advice = "; indent with spaces, not tabs" if line.startswith("\t") else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {error.problem}{advice}") from error
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not own:
        raise ConfigError(f"{path}: empty; expected keys such as those in configs/README.md")
    if not OmegaConf.is_dict(own):
        raise ConfigError(f"{path}: expected a mapping (key: value) at the top level")
    return own


def merge(under: Any, over: Any, whole: Paths = frozenset()) -> Any:
    """``over`` merged into the mapping ``under``, which is changed and returned.

    A mapping with another ``name`` or ``preset`` replaces the whole slot below it. A mapping
    without either changes single keys, also those of a preset named below.

    ``whole``: paths of mappings that replace those of ``under``.
    """
    for key, value in list(over.items_ex(resolve=False)):
        below, inner = under.get(key), frozenset(p[1:] for p in whole if p[0] == key and p[1:])
        if (key,) in whole:
            under[key] = value
        elif OmegaConf.is_dict(value) and isinstance(below, str):
            named = "name" in value or "preset" in value
            under[key] = value if named else {"preset": below, **value}
        elif OmegaConf.is_dict(value) and below is not None and OmegaConf.is_dict(below):
            other = any(k in value and value[k] != below.get(k) for k in ("name", "preset"))
            under[key] = value if other else merge(below, value, inner)
        else:
            under[key] = value
    return under


def override(config: Any, items: Iterable[str], path: str = "", whole: Paths = frozenset()) -> Any:
    """``key=value`` changes on a mapping; returns plain data.

    Args:
        path: the configuration's file, for error messages.
        whole: see ``merge``. A key inside such a mapping, ``sampling_weights.web=0``, changes this
            key only.

    Raises:
        ConfigError: an item that is not of this form, or an interpolation without a value.
    """
    config = OmegaConf.create(config)
    for item in items:
        key, equals, _ = item.partition("=")
        if not equals or not key or not all(key.split(".")):
            raise ConfigError(f"override {item!r}: expected key=value, for example train.steps=100")
        try:
            keys = tuple(key.split("."))
            own = frozenset(p for p in whole if keys[: len(p)] != p or len(keys) == len(p))
            config = merge(config, OmegaConf.from_dotlist([item]), own)
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"override {item!r}: not a valid key or value: {reason}") from error
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason, key = str(error).partition("\n")[0], error.full_key or ""
        raise ConfigError(f"{f'{path}: ' if path else ''}{key}: {reason}") from error
