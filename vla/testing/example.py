"""Small instances of components."""

from __future__ import annotations

from typing import Any

from vla.config import registered
from vla.config.registry import explain_unknown
from vla.errors import ConfigError


def example(slot: str, name: str) -> dict[str, Any]:
    """Options of a small instance: the class attribute ``example`` of the component, or none.

    Raises:
        ConfigError: the slot has no component of this name.
    """
    components = registered(slot)
    if name not in components:
        raise ConfigError(explain_unknown(slot, name))
    return dict(getattr(components[name], "example", {}))
