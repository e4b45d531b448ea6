"""YAML to validated configuration to objects.

A component is a class with ``@register(slot, name)``. Its options are the positional parameters of
its constructor or, if the first one is ``config: SomeDataclass``, the fields of that dataclass.
Keyword-only parameters are set by the program (widths, tokenizer, action space), never in YAML.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vla.config.options import config_class, replaced_paths
from vla.config.registry import registered
from vla.config.validation import check, check_slot
from vla.config.yaml_files import Paths, load, override
from vla.errors import ConfigError


def load_config(
    path: str | Path,
    overrides: Iterable[str] = (),
    schema: type | None = None,
    early: Callable[[Any], None] | None = None,
) -> Any:
    """A YAML file merged over its base, changed by ``key=value`` overrides, then validated.

    Returns an instance of the dataclass ``schema``; without one, plain data. ``early`` checks this
    instance before components are imported and validated, which takes seconds.

    Raises:
        ConfigError: an unreadable file, an unknown key or an invalid value.
    """
    whole: Paths = frozenset() if schema is None else replaced_paths(schema)
    data = override(load(Path(path), whole), overrides, str(path), whole)
    if schema is None:
        return data
    quick = check(data, schema, "", slots=False)  # it imports no component
    if early is not None:
        early(quick)
    return check(data, schema, "")


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
    with _user_path(slot, path or slot, cls):
        return cls(**checked, **wired) if config is None else cls(config(**checked), **wired)


@contextmanager
def _user_path(slot: str, path: str, cls: type) -> Iterator[None]:
    """Give errors of a constructor the path of the component in the user's configuration.

    A component knows its slot only: its message begins with ``vision.model``, and the user wrote
    ``policy.vision.model``. An error of a library does not name the component at all.
    """
    try:
        yield
    except ValueError as error:
        own = str(error).removeprefix(slot)
        if own == str(error) or not own.startswith((".", ":", "[")) or path == slot:
            raise
        raise ConfigError(f"{path}{own}") from error
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ConfigError(
            f"{path}: {cls.__name__} cannot be built with these options "
            f"({type(error).__name__}: {error})"
        ) from error
