"""Components by slot and name, plug-ins, and the location of the shipped configurations."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, metadata
from pathlib import Path
from typing import TypeVar

from vla.errors import ConfigError

_T = TypeVar("_T")
_REGISTRY: dict[str, dict[str, type]] = {}
PLUGIN_GROUP = "vla.plugins"
# The modules of each slot. Packages are imported whole, when the slot is first used.
_HOMES = {
    "policy": ["vla.policies"],
    "vision": ["vla.models.vision"],
    "connector": ["vla.models.connectors"],
    "decoder": ["vla.models.decoders"],
    "text": ["vla.models.decoders"],
    "head": ["vla.models.heads"],
    "codec": ["vla.models.actions"],
    "source": ["vla.data.robot", "vla.data.web.source", "vla.benchmarks"],
    "reader": ["vla.data.readers"],
    "web_reader": ["vla.data.web"],
    "benchmark": ["vla.benchmarks"],
    "protocol": ["vla.serve.protocols"],
}
_MISSING: dict[str, str] = {}  # module -> why it cannot be imported (an optional dependency)


@dataclass(frozen=True)
class Slot:
    """Marks a constructor parameter as a slot: ``vision: Annotated[dict, Slot("vision")]``."""

    name: str


@dataclass(frozen=True)
class Replaced:
    """Marks a mapping that replaces that of the base file, instead of being merged with it."""


def register(slot: str, name: str) -> Callable[[type[_T]], type[_T]]:
    """Class decorator: make a component available to YAML as ``{name: ...}`` in ``slot``.

    Raises:
        ConfigError: an unknown slot, or another class has the name.
    """

    def add(cls: type[_T]) -> type[_T]:
        if slot not in _HOMES:
            raise ConfigError(f"unknown slot {slot!r}{nearest(slot, _HOMES)}")
        known = _REGISTRY.setdefault(slot, {}).setdefault(name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(
                f"{slot} {name!r}: {cls.__module__}.{cls.__qualname__} has the name of "
                f"{known.__module__}.{known.__qualname__}; choose another name"
            )
        _REGISTRY[slot][name] = cls  # the same class again, if its module is reloaded
        return cls

    return add


def slots() -> tuple[str, ...]:
    """Names of all slots."""
    return tuple(_HOMES)


def registered(slot: str) -> dict[str, type]:
    """Every component of a slot by name: the package's own and those of plug-ins."""
    for home in _HOMES[slot]:
        _import_all(home)
    _load_plugins()
    return dict(sorted(_REGISTRY.get(slot, {}).items()))


def unavailable() -> dict[str, str]:
    """Modules that were left out because an optional dependency is missing -> the reason."""
    return dict(_MISSING)


@functools.cache
def _import_all(home: str) -> None:
    """Import a module, or every module of a package.

    A package inside ``home`` (a benchmark of several files) lists in ``REGISTERS`` which of its
    modules register components. A module whose optional dependency is missing is left out.
    """
    module = importlib.import_module(home)
    names = [
        f"{home}.{info.name}" for info in pkgutil.iter_modules(getattr(module, "__path__", []))
    ]
    for name in names:
        try:
            found = importlib.import_module(name)
            for part in getattr(found, "REGISTERS", ()):
                importlib.import_module(f"{name}.{part}")
        except ModuleNotFoundError as error:
            package = (error.name or "vla").split(".")[0]
            if package == "vla":
                raise
            _MISSING[name] = f"needs the package {package} ({_advice(name, package)})"


@functools.cache
def _load_plugins() -> None:
    """Import what other installed packages name in the entry point group ``vla.plugins``.

    Raises:
        ConfigError: a plug-in cannot be imported.
    """
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            point.load()
        except Exception as error:
            raise ConfigError(
                f"plug-in {point.name!r} ({point.value}): {type(error).__name__}: {error}; "
                "repair or uninstall the package that has it"
            ) from error


def explain_unknown(slot: str, name: str) -> str:
    """An error message for a name that no component of the slot has.

    It names the nearest component, and the modules of the slot that could not be imported.
    """
    lines = [f"no {slot} component {name!r}{nearest(name, registered(slot))}"]
    for module, reason in unavailable().items():
        if any(module.startswith(f"{home}.") for home in _HOMES[slot]):
            lines.append(f"{module} is not available: it {reason}")
    return ". ".join(lines)


def _advice(module: str, package: str) -> str:
    """How to install a missing package: by the extra with the module's name, if there is one."""
    extra = module.rpartition(".")[2]
    try:
        extras = metadata("vla").get_all("Provides-Extra") or []
    except PackageNotFoundError:  # run from a checkout that is not installed
        extras = []
    return f"pip install 'vla[{extra}]'" if extra in extras else f"pip install {package}"


def configs_dir() -> Path:
    """The shipped ``configs/``: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def presets(slot: str) -> dict[str, Path]:
    """Preset files of a slot, by name."""
    return {p.stem: p for p in sorted((configs_dir() / slot).glob("*.yaml"))}


_LISTED = 60  # choices in an error message


def nearest(word: str, choices: Iterable[str]) -> str:
    """``; did you mean ...? Choices: ...`` for an error message; not all choices if many."""
    choices = sorted(choices)
    many = len(choices) > _LISTED
    close = difflib.get_close_matches(word, choices, n=3 if many else 1, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
    if many and close:
        return f"{hint} ({len(choices)} choices)"
    if many:
        return f"{hint} Choices: {', '.join(choices[:_LISTED])}, ... ({len(choices)} in all)"
    return f"{hint} Choices: {', '.join(choices) if choices else 'none'}"
