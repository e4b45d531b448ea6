"""The mapping of a data set without some of its action dimensions, as command-line arguments."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from typing import Any

from vla.data.mapping import Mapping
from vla.data.resolved_mapping import ResolvedMapping

_BY_POSITION = ("names", "units")  # options with one entry for each dimension
_BY_NAME = ("binary", "invert", "delta", "accumulate")  # options whose entries name a dimension


def without(resolved: ResolvedMapping, dims: Collection[str]) -> str:
    """Quoted ``source.mapping.key=value`` arguments that leave out action dimensions.

    Empty if no dimension is left, or if rotations are converted: their dimensions go together.
    """
    options, names = resolved.mapping, resolved.raw_names
    kept = [name not in dims for name in names]
    if options.rotations or not any(kept):
        return ""
    changed: dict[str, Any] = {"action": resolved.action.entries(kept)}
    for key in _BY_POSITION:
        if value := getattr(options, key):
            changed[key] = [v for v, keep in zip(value, kept, strict=True) if keep]
    for key in _BY_NAME:
        if any(name in dims for name in getattr(options, key)):
            changed[key] = _filtered(options, key, dims)
    return " ".join(shlex.quote(f"source.mapping.{k}={json.dumps(v)}") for k, v in changed.items())


def _filtered(options: Mapping, key: str, dims: Collection[str]) -> Any:
    value = getattr(options, key)
    if isinstance(value, dict):
        return {name: v for name, v in value.items() if name not in dims}
    return [name for name in value if name not in dims]
