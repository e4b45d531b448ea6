"""Validation of plain data against type annotations, by pydantic, with messages for YAML authors.

Values are strict: a string is never read as a number, ``true`` is no int. Two conversions are
made: an int where a float is expected, and a list where a tuple is expected.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, NotRequired, Required, Union

from pydantic import (
    BeforeValidator,
    PlainValidator,
    Strict,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from typing_extensions import TypedDict

from vla.config.options import REQUIRED, config_class, options
from vla.config.quick import components, resolve_preset
from vla.config.registry import Slot, explain_unknown, nearest, registered
from vla.errors import ConfigError, InvalidValue

_PLAIN = (int, float, str, bool, dict)
_EXPECTED = {  # pydantic's error type -> what the value must be
    "int_type": "int",
    "float_type": "float",
    "string_type": "str",
    "bool_type": "bool",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}


def check(value: Any, annotation: Any, path: str, slots: bool = True) -> Any:
    """The value, validated; dataclasses and tuples are built from mappings and lists.

    ``slots``: validate components too, whose modules are slow to import. Otherwise only the names
    of presets and components are checked.

    Raises:
        ConfigError: the message begins with the path of the first invalid key.
    """
    try:
        return _adapter(annotation, slots).validate_python(value)
    except ValidationError as error:
        raise _translate(error, value, path) from error


def check_ranges(config: Any, **limits: tuple[float, float]) -> None:
    """Check numbers of a configuration dataclass, for its ``__post_init__``.

    ``limits``: option -> (smallest, largest) allowed value. None is always allowed.

    Raises:
        ConfigError: a number is outside, or not a number.
    """
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            expected = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
            raise InvalidValue(name, f"expected {expected}, got {value!r}")


def check_slot(value: Any, slot: str, path: str) -> dict[str, Any]:
    """A slot's value with its preset resolved, validated: ``{"name": ..., **arguments}``.

    Raises:
        ConfigError: unknown preset, component or argument, or an argument of the wrong type.
    """
    value = resolve_preset(value, slot, path)
    known, name = registered(slot), value.get("name")
    if name not in known:
        raise InvalidValue(_join(path, "name"), explain_unknown(slot, str(name)))
    arguments = {k: v for k, v in value.items() if k != "name"}
    cls = known[name]
    if (config := config_class(cls)) is not None:
        check(arguments, config, path)  # the dataclass may check more than types
    return {"name": name, **check(arguments, _Arguments(cls), path)}


class _Arguments:
    """Stands for the options of a class in ``check``, to get a mapping and not an instance."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Arguments) and other.cls is self.cls

    def __hash__(self) -> int:
        return hash(self.cls)


@functools.cache
def _adapter(annotation: Any, slots: bool) -> TypeAdapter[Any]:
    return TypeAdapter(_pydantic(annotation, slots))


def _pydantic(annotation: Any, slots: bool) -> Any:
    """The annotation in the form that pydantic validates as the module's docstring says."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, _Arguments):
        return _mapping(annotation.cls, slots)
    if is_dataclass(annotation) and isinstance(annotation, type):
        return Annotated[_mapping(annotation, slots), WrapValidator(_constructing(annotation))]
    if origin is Annotated:
        slot = next((a.name for a in args[1:] if isinstance(a, Slot)), None)
        if slot is None:
            return _pydantic(args[0], slots)
        if not slots:
            return Annotated[Any, PlainValidator(functools.partial(_names, slot=slot))]
        return Annotated[Any, PlainValidator(lambda value: check_slot(value, slot, ""))]
    if origin in (Union, types.UnionType):
        return Union[tuple(_pydantic(a, slots) for a in args)]  # noqa: UP007
    if origin is Literal:
        return Annotated[Any, PlainValidator(_one_of(args))]
    if origin is tuple and args[-1] is not Ellipsis:
        exact: Any = types.GenericAlias(tuple, tuple(_pydantic(a, slots) for a in args))
        return Annotated[exact, Strict(False), BeforeValidator(_of_length(len(args)))]
    if origin is tuple:
        return Annotated[tuple[_pydantic(args[0], slots), ...], Strict(False)]  # type: ignore[misc]
    if origin is list:
        return Annotated[list[_pydantic(args[0], slots)], Strict(False)]  # type: ignore[misc]
    if origin is dict:
        return dict[Any, _pydantic(args[1], slots)]  # type: ignore[misc]
    return Annotated[annotation, Strict()] if annotation in _PLAIN else annotation


def _names(value: Any, slot: str) -> Any:
    """The value; its presets and component names exist."""
    for _ in components(value, slot, ""):
        pass
    return value


def _mapping(cls: type, slots: bool) -> Any:
    """A typed dictionary of the options; only the keys that the user gives are in its result."""
    known, refused = options(cls), getattr(cls, "refused", {})  # name -> why it is no option

    def check_keys(value: Any) -> Any:
        if not isinstance(value, dict):
            raise InvalidValue("", f"expected a mapping, got {value!r}")
        for key in value:
            if key in refused:
                raise InvalidValue(str(key), f"not an option: {refused[key]}")
            if key not in known:
                raise InvalidValue(str(key), f"unknown key{nearest(str(key), known)}")
        return value

    entries = {}
    for key, (annotation, default) in known.items():
        presence: Any = Required if default is REQUIRED else NotRequired
        entries[key] = presence[_pydantic(annotation, slots)]
    make: Any = TypedDict
    return Annotated[make(cls.__name__, entries), BeforeValidator(check_keys)]


def _constructing(cls: Any) -> Callable[[Any, Callable[[Any], Any]], Any]:
    def construct(value: Any, validate: Callable[[Any], Any]) -> Any:
        if isinstance(value, cls):
            return value
        arguments = validate(value)
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ValueError(str(error)) from error

    return construct


def _one_of(choices: tuple[Any, ...]) -> Callable[[Any], Any]:
    def validate(value: Any) -> Any:
        if value not in choices:
            raise InvalidValue(
                "", f"{value!r} is not allowed{nearest(str(value), map(str, choices))}"
            )
        return value

    return validate


def _of_length(length: int) -> Callable[[Any], Any]:
    def validate(value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) != length:
            raise InvalidValue("", f"expected {length} values, got {len(value)}: {value!r}")
        return value

    return validate


def _translate(error: ValidationError, value: Any, path: str) -> ConfigError:
    """The first of pydantic's errors as a ConfigError with the key's path."""
    first = error.errors()[0]
    for key in first["loc"]:  # a key that the value does not have is a label of a union's option
        if isinstance(value, dict) and (key in value or first["type"] == "missing"):
            path, value = _join(path, str(key)), value.get(key)
        elif isinstance(value, list | tuple) and isinstance(key, int):
            path, value = f"{path}[{key}]", value[key]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidValue):
        return InvalidValue(_join(path, cause.path), cause.problem)
    if isinstance(cause, ConfigError):
        return cause
    if cause is not None:
        return InvalidValue(path, str(cause))
    if first["type"] == "missing":
        return InvalidValue(path, "required, but missing")
    expected, got = _EXPECTED.get(first["type"], first["msg"]), first["input"]
    return InvalidValue(path, f"expected {expected}, got {got!r} ({type(got).__name__})")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key
