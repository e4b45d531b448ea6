"""YAML to validated configuration to objects.

A component is a class with ``@register(slot, name)``. Its options are the positional parameters of
its constructor or, if the first one is ``config: SomeDataclass``, the fields of that dataclass.
Keyword-only parameters are set by the program (widths, tokenizer, action space), never in YAML.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from vla.config.options import config_class
from vla.config.registry import registered
from vla.config.validation import check, check_slot
from vla.config.yaml_files import load, override
from vla.errors import ConfigError


def load_config(path: str | Path, overrides: Iterable[str] = (), schema: type | None = None) -> Any:
    """A YAML file merged over its base, changed by ``key=value`` overrides, then validated.

    Returns an instance of the dataclass ``schema``; without one, plain data.

    Raises:
        ConfigError: an unreadable file, an unknown key or an invalid value.
    """
    try:
        data = override(load(Path(path)), overrides)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {error}") from error
    return check(data, schema, "") if schema else data


def build(slot: str, value: Any, path: str = "", **wired: Any) -> Any:
    """The component that a slot's value describes.

    ``wired``: keyword-only arguments of the program. A component gets those that its constructor
    names.

    Raises:
        ConfigError: the value is invalid; the message begins with ``path`` (default: the slot).
    """
    checked = check_slot(value, slot, path or slot)
    cls = registered(slot)[checked.pop("name")]
    named = {
        p.name: p.default is p.empty
        for p in inspect.signature(cls).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    missing = [name for name, required in named.items() if required and name not in wired]
    if missing:
        raise ConfigError(
            f"{path or slot}: {cls.__name__} has the keyword-only parameter {missing[0]!r}, which "
            f"the program does not give to a {slot}; it gives {', '.join(sorted(wired)) or 'none'}"
        )
    wired = {k: v for k, v in wired.items() if k in named}
    config = config_class(cls)
    return cls(**checked, **wired) if config is None else cls(config(**checked), **wired)
