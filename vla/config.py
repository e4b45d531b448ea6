"""YAML to validated configuration to objects.

A component is a class with ``@register(slot, name)``; its constructor's signature is its schema. Positional-or-keyword parameters are
the user's; keyword-only parameters are wired by the program (widths, tokenizer, action space) and cannot be set in YAML.
A slot's value is a mapping with ``name:``, or the name of a preset, a file ``configs/<slot>/<preset>.yaml``, or a mapping with ``preset:`` and what
is to be different.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vla.registry import ConfigError, Slot, configs_dir, nearest, presets, register, registered

_T = TypeVar("_T")
__all__ = ["ConfigError", "Slot", "build", "check", "configs_dir", "load_config", "presets", "read_yaml", "register", "registered"]


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as a plain mapping, ``base:`` (relative to it, single inheritance) merged in beneath it."""
    return OmegaConf.to_container(_load(path, ()))  # type: ignore[return-value]


def _load(path: Path, seen: tuple[Path, ...]) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration{nearest(path.stem, (p.stem for p in path.parent.glob('*.yaml')))}")
    if path.resolve() in seen:
        raise ConfigError(f"{path}: base: goes round in a circle")
    try:
        own: Any = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not OmegaConf.is_dict(own):
        raise ConfigError(f"{path}: expected a mapping at the top")
    base = own.pop("base", None)
    if base is None:
        return own
    return merge_slots(_load(path.parent / str(base), (*seen, path.resolve())), own)


def merge_slots(under: Any, over: Any) -> Any:
    """OmegaConf merge, except that a slot whose ``name`` changes, or that names a preset, replaces the whole slot."""
    for key, value in list(over.items_ex(resolve=False)):
        if key in under and OmegaConf.is_dict(value):
            if isinstance(under[key], str):  # a preset, of which something is to be different
                under[key] = value if "name" in value or "preset" in value else {"preset": under[key], **value}
                continue
            if not OmegaConf.is_dict(under[key]):
                under[key] = value
                continue
            renamed = any(k in value and value.get(k) != under[key].get(k) for k in ("name", "preset"))
            under[key] = value if renamed else merge_slots(under[key], value)
        else:
            under[key] = value
    return under


def load_config(path: str | Path, overrides: Iterable[str] = (), schema: type[_T] | None = None) -> Any:
    """Base, file, then ``key=value`` overrides, validated against a dataclass.

    Raises:
        ConfigError: see the class. An override may only set a key that the schema knows.
    """
    try:
        data = override(_load(Path(path), ()), overrides)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {error}") from error
    return check(data, schema, "") if schema else data


def override(config: Any, items: Iterable[str]) -> Any:
    """``key=value`` changes on a mapping; returns plain data.

    Raises:
        ConfigError: an item that is not of this form.
    """
    config = OmegaConf.create(config)
    for item in items:
        key, eq, _ = item.partition("=")
        if not eq or not key:
            raise ConfigError(f"override {item!r}: expected key=value, for example train.steps=100")
        config = merge_slots(config, OmegaConf.from_dotlist([item]))
    return OmegaConf.to_container(config, resolve=True)


def _constructor(cls: type) -> Callable[..., Any]:
    return vars(cls)["__init__"]


def _signature(cls: type) -> dict[str, tuple[Any, Any]]:
    """User-settable parameters: name -> (annotation, default or inspect.Parameter.empty)."""
    hints = typing.get_type_hints(cls if is_dataclass(cls) else _constructor(cls), include_extras=True)
    if is_dataclass(cls):
        found = {}
        for f in fields(cls):
            default = f.default if f.default is not MISSING else MISSING
            if default is MISSING and f.default_factory is not MISSING:
                default = f.default_factory()
            found[f.name] = (hints[f.name], inspect.Parameter.empty if default is MISSING else default)
        return found
    parameters = inspect.signature(_constructor(cls)).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
    return {p.name: (hints.get(p.name, Any), p.default) for p in parameters if p.kind in kinds and p.name != "self"}


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _check_mapping(value: Any, cls: type, path: str) -> dict[str, Any]:
    """Validated keyword arguments of ``cls``."""
    if not isinstance(value, dict):
        raise ConfigError(f"{path or 'top level'}: expected a mapping, got {value!r}")
    known = _signature(cls)
    for key in value:
        if key not in known:
            raise ConfigError(f"{_join(path, str(key))}: unknown key{nearest(str(key), known)}")
    result = {}
    for key, (annotation, default) in known.items():
        if key in value:
            result[key] = check(value[key], annotation, _join(path, key))
        elif default is inspect.Parameter.empty:
            raise ConfigError(f"{_join(path, key)}: required, but missing")
    return result


def check_slot(value: Any, slot: str, path: str) -> dict[str, Any]:
    """Resolve presets and validate a slot's value; returns ``{"name": ..., **arguments}``."""
    components = registered(slot)
    if isinstance(value, str):
        value = {"preset": value}
    if isinstance(value, dict) and "preset" in value:
        available, preset = presets(slot), value["preset"]
        if preset not in available:
            raise ConfigError(f"{path}: no preset {preset!r} under configs/{slot}/{nearest(str(preset), available)}")
        changes = OmegaConf.create({k: v for k, v in value.items() if k != "preset"})
        value = OmegaConf.to_container(merge_slots(OmegaConf.create(read_yaml(available[preset])), changes))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping with name: or the name of a preset, got {value!r}")
    name = value.get("name")
    if name not in components:
        raise ConfigError(f"{_join(path, 'name')}: no {slot} component {name!r}{nearest(str(name), components)}")
    arguments = {k: v for k, v in value.items() if k != "name"}
    return {"name": name, **_check_mapping(arguments, components[name], path)}


def check(value: Any, annotation: Any, path: str) -> Any:
    """Validate (and, for dataclasses and tuples, build) one value against a type annotation."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        slots = [a for a in args[1:] if isinstance(a, Slot)]
        return check_slot(value, slots[0].name, path) if slots else check(value, args[0], path)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        errors = []
        for option in options:
            try:
                return check(value, option, path)
            except ConfigError as error:
                errors.append(error)
        raise errors[0]
    if is_dataclass(annotation) and isinstance(annotation, type):
        if isinstance(value, annotation):
            return value
        arguments = _check_mapping(value, annotation, path)
        try:
            return annotation(**arguments)
        except (ValueError, TypeError) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"{path or 'top level'}: {error}") from error
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{path}: {value!r} is not allowed{nearest(str(value), map(str, args))}")
        return value
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}: expected a list, got {value!r}")
        if origin is tuple and args and args[-1] is not Ellipsis:
            if len(value) != len(args):
                raise ConfigError(f"{path}: expected {len(args)} values, got {len(value)}: {value!r}")
            return tuple(check(v, a, f"{path}[{n}]") for n, (v, a) in enumerate(zip(value, args, strict=True)))
        return origin(check(v, args[0], f"{path}[{n}]") for n, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: expected a mapping, got {value!r}")
        return {k: check(v, args[1], _join(path, str(k))) for k, v in value.items()}
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation in (int, float, str, bool, dict):
        if not isinstance(value, annotation) or (annotation is int and isinstance(value, bool)):
            raise ConfigError(f"{path}: expected {annotation.__name__}, got {value!r} ({type(value).__name__})")
        return value
    raise ConfigError(f"{path}: cannot be set in YAML (type {annotation})")


def build(slot: str, value: Any, path: str = "", **wired: Any) -> Any:
    """Make the component a slot's value describes, with the program's own keyword-only arguments.

    Only the wired arguments that the constructor names are passed, so a component asks for what it needs.
    """
    checked = check_slot(value, slot, path or slot)
    cls = registered(slot)[checked.pop("name")]
    accepted = {p.name for p in inspect.signature(_constructor(cls)).parameters.values() if p.kind is p.KEYWORD_ONLY}
    return cls(**checked, **{k: v for k, v in wired.items() if k in accepted})
