"""The options of a class: what a user can set in YAML, with types and defaults."""

from __future__ import annotations

import inspect
import typing
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from vla.config.registry import Replaced

REQUIRED = inspect.Parameter.empty


def config_class(cls: type) -> type | None:
    """The dataclass of a component with ``config: SomeDataclass`` as its first parameter."""
    first = next(iter(_parameters(cls).items()), None)
    if first is None or first[0] != "config":
        return None
    annotation = first[1][0]
    return annotation if is_dataclass(annotation) and isinstance(annotation, type) else None


def options(cls: type) -> dict[str, tuple[Any, Any]]:
    """What a user can set: name -> (annotation, default or ``REQUIRED``).

    For a dataclass its fields; for a component the fields of its configuration dataclass or,
    without one, the positional parameters of its constructor.
    """
    cls = cls if is_dataclass(cls) else config_class(cls) or cls
    return _fields(cls) if is_dataclass(cls) else _parameters(cls)


def _fields(cls: Any) -> dict[str, tuple[Any, Any]]:
    hints, found = typing.get_type_hints(cls, include_extras=True), {}
    for f in fields(cls):
        default = f.default if f.default_factory is MISSING else f.default_factory()
        found[f.name] = (hints[f.name], REQUIRED if default is MISSING else default)
    return found


def _parameters(cls: Any) -> dict[str, tuple[Any, Any]]:
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    return {
        p.name: (hints.get(p.name, Any), p.default)
        for p in inspect.signature(cls.__init__).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
    }


def replaced_paths(cls: Any, path: tuple[str, ...] = ()) -> frozenset[tuple[str, ...]]:
    """Paths of the mappings in a dataclass that replace those of a base, see ``Replaced``."""
    found: set[tuple[str, ...]] = set()
    for name, (annotation, _) in options(cls).items():
        if Replaced() in typing.get_args(annotation)[1:]:
            found.add((*path, name))
        elif is_dataclass(annotation):
            found |= replaced_paths(annotation, (*path, name))
    return frozenset(found)


def plain(value: Any) -> Any:
    """Tuples as lists and dataclasses as mappings, recursively, for YAML."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
