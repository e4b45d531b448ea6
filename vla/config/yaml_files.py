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


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file, merged over its ``base:`` file, as a plain mapping.

    Raises:
        ConfigError: no such file, invalid YAML, or a circular ``base:``.
    """
    return OmegaConf.to_container(load(path))  # type: ignore[return-value]


def load(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """One YAML file merged over its base, as an OmegaConf mapping.

    ``above``: the files that have this one as their base.
    """
    if not path.is_file():
        choices = (p.stem for p in path.parent.glob("*.yaml"))
        raise ConfigError(f"{path}: no such configuration{nearest(path.stem, choices)}")
    if path.resolve() in above:
        raise ConfigError(f"{path}: base: circular reference; remove one of the base: lines")
    try:
        own: Any = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not OmegaConf.is_dict(own):
        raise ConfigError(f"{path}: expected a mapping at the top level")
    base = own.pop("base", None)
    if base is None:
        return own
    return merge(load(path.parent / str(base), (*above, path.resolve())), own)


def merge(under: Any, over: Any) -> Any:
    """``over`` merged into the mapping ``under``, which is changed and returned.

    A mapping with another ``name`` or ``preset`` replaces the whole slot below it. A mapping
    without either changes single keys, also those of a preset named below.
    """
    for key, value in list(over.items_ex(resolve=False)):
        below = under.get(key)
        if OmegaConf.is_dict(value) and isinstance(below, str):
            named = "name" in value or "preset" in value
            under[key] = value if named else {"preset": below, **value}
        elif OmegaConf.is_dict(value) and below is not None and OmegaConf.is_dict(below):
            other = any(k in value and value[k] != below.get(k) for k in ("name", "preset"))
            under[key] = value if other else merge(below, value)
        else:
            under[key] = value
    return under


def override(config: Any, items: Iterable[str]) -> Any:
    """``key=value`` changes on a mapping; returns plain data.

    Raises:
        ConfigError: an item that is not of this form.
    """
    config = OmegaConf.create(config)
    for item in items:
        key, equals, _ = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {item!r}: expected key=value, for example train.steps=100")
        config = merge(config, OmegaConf.from_dotlist([item]))
    return OmegaConf.to_container(config, resolve=True)
