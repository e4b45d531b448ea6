"""Components by slot and name, and where the shipped configurations lie."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_REGISTRY: dict[str, dict[str, type]] = {}
# where each slot's components live; packages are imported whole, and only when the slot is first asked for
_HOMES = {
    "policy": ["vla.policy", "vla.rt1"], "vision": ["vla.vision"], "connector": ["vla.connectors"], "decoder": ["vla.decoders"],
    "head": ["vla.heads"], "codec": ["vla.actions"], "text": ["vla.decoders"], "source": ["vla.data.sources", "vla.data.robot"],
}  # fmt: skip


class ConfigError(ValueError):
    """A mistake in a configuration; the message has the path of the key, what is wrong, the nearest valid name and the choices."""


class Stopped(BaseException):
    """Work was stopped by Ctrl-C or SIGTERM with everything kept. Not a ``KeyboardInterrupt``: typer swallows its message."""


@dataclass(frozen=True)
class Slot:
    """Marks a constructor parameter as a slot: ``vision: Annotated[dict, Slot("vision")]``."""

    name: str


def register(slot: str, name: str) -> Callable[[type[_T]], type[_T]]:
    """Class decorator: make a component available to YAML as ``{name: ...}`` in ``slot``."""

    def add(cls: type[_T]) -> type[_T]:
        if slot not in _HOMES:
            raise ConfigError(f"unknown slot {slot!r}{nearest(slot, _HOMES)}")
        _REGISTRY.setdefault(slot, {})[name] = cls
        return cls

    return add


def registered(slot: str) -> dict[str, type]:
    """Every component of a slot, by name."""
    for home in _HOMES[slot]:
        module = importlib.import_module(home)
        for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
            importlib.import_module(f"{home}.{info.name}")
    return dict(sorted(_REGISTRY.get(slot, {}).items()))


def configs_dir() -> Path:
    """The shipped ``configs/``: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def presets(slot: str) -> dict[str, Path]:
    """Preset files of a slot, by name."""
    return {p.stem: p for p in sorted((configs_dir() / slot).glob("*.yaml"))}


def nearest(word: str, choices: Iterable[str]) -> str:
    """ "; did you mean ...? Choices: ..." for an error message."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} Choices: {', '.join(choices) if choices else 'none'}"
