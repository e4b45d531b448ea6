"""Checks of presets, component names and keys that import no component: imports take seconds."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vla.config.registry import _HOMES, _REGISTRY, PLUGIN_GROUP, nearest, presets
from vla.config.yaml_files import merge, read_yaml
from vla.errors import InvalidValue

_REGISTERED = re.compile(r'^@register\("(\w+)", "([\w/]+)"\)\n', re.M)
_SLOT_OPTION = re.compile(r'^ +(\w+): Annotated\[dict\[[^\n]*Slot\("(\w+)"\)\]', re.M)


def resolve_preset(value: Any, slot: str, path: str) -> dict[str, Any]:
    """A slot's value as a mapping, with its preset inserted.

    Raises:
        InvalidValue: no such preset, or neither a mapping nor a name.
    """
    if isinstance(value, str):
        value = {"preset": value}
    if isinstance(value, dict) and "preset" in value:
        available, preset = presets(slot), value["preset"]
        if preset not in available:
            hint = nearest(str(preset), available)
            raise InvalidValue(path, f"no preset {preset!r} under configs/{slot}/{hint}")
        changes = OmegaConf.create({k: v for k, v in value.items() if k != "preset"})
        value = OmegaConf.to_container(
            merge(OmegaConf.create(read_yaml(available[preset])), changes)
        )
    if not isinstance(value, dict):
        raise InvalidValue(
            path, f"expected a mapping with name: or the name of a preset, got {value!r}"
        )
    return value


def components(value: Any, slot: str, path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, slot and mapping of a component and of those in its own slots.

    Raises:
        InvalidValue: an unknown preset or option, or an unknown name where no plug-in is installed.
    """
    value = resolve_preset(value, slot, path)
    yield path, slot, value
    known, name = _own(slot), value.get("name")
    if name not in known:
        if name not in _REGISTRY.get(slot, {}) and not entry_points(group=PLUGIN_GROUP):
            problem = f"no {slot} component {str(name)!r}{nearest(str(name), known)}"
            raise InvalidValue(_join(path, "name"), problem)
        return
    options = known[name].options
    for key in value:
        if options is not None and key != "name" and key not in options:
            raise InvalidValue(_join(path, str(key)), f"unknown key{nearest(str(key), options)}")
    for option, inner in known[name].slots.items():
        if value.get(option) is not None:
            yield from components(value[option], inner, _join(path, option))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


@dataclass(frozen=True)
class _Source:
    """A component in the source text. ``options`` is None if they are not all in its file."""

    options: frozenset[str] | None
    slots: dict[str, str]  # option that is a slot -> slot


@functools.cache
def _own(slot: str) -> dict[str, _Source]:
    """Components of this package by name."""
    root = Path(__file__).parent.parent.parent
    found: dict[str, _Source] = {}
    for home in _HOMES[slot]:
        place = root.joinpath(*home.split("."))
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for text in (file.read_text(encoding="utf-8") for file in files):
            names = [name for of, name in _REGISTERED.findall(text) if of == slot]
            tree = ast.parse(text) if names else ast.Module([], [])
            slots = dict(_SLOT_OPTION.findall(text))
            classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
            own = list(classes.values())
            for other in _config_files(tree, root):
                slots |= dict(_SLOT_OPTION.findall(other))
                inner = ast.parse(other).body
                classes |= {n.name: n for n in inner if isinstance(n, ast.ClassDef)}
            for node in own:
                for call in node.decorator_list:
                    name = call.args[-1] if isinstance(call, ast.Call) and call.args else None
                    if isinstance(name, ast.Constant) and name.value in names:
                        found[str(name.value)] = _Source(_options(node, classes), slots)
    return found


def _config_files(tree: ast.Module, root: Path) -> Iterator[str]:
    """Source texts of the modules ``..._config`` that a component's module imports."""
    for node in tree.body:
        module = getattr(node, "module", None) or ""
        if isinstance(node, ast.ImportFrom) and module.endswith("_config"):
            path = root.joinpath(*module.split(".")).with_suffix(".py")
            if path.is_file():
                yield path.read_text(encoding="utf-8")


def _options(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> frozenset[str] | None:
    """Positional parameters of the constructor, or the fields of its configuration dataclass."""
    inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    if not inits:
        return None
    arguments = inits[0].args.args[1:]
    if not arguments or arguments[0].arg != "config":
        return frozenset(a.arg for a in arguments)
    kind = arguments[0].annotation
    owner = classes.get(kind.id) if isinstance(kind, ast.Name) else None
    if owner is None or owner.bases:
        return None
    names = (n.target for n in owner.body if isinstance(n, ast.AnnAssign))
    return frozenset(t.id for t in names if isinstance(t, ast.Name))
