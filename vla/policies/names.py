"""Cameras and state fields of the outside world, found by their names and never by position."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vla.errors import ConfigError
from vla.utils.notes import note

MAX_DEPTH = 16  # levels of nested mappings
MAX_STATE = 4096  # numbers of one state field
# Words that say "this is a camera image", not which camera it is.
_DECORATION = {"image", "images", "img", "rgb", "color", "colour", "cam", "camera", "0"}


class NotFinite(ValueError):
    """A state has NaN or infinity."""


def flatten(nested: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Nested mappings as one mapping with slash-separated names.

    Raises:
        ValueError: more than ``MAX_DEPTH`` levels.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"mappings with more than {MAX_DEPTH} levels; send flat names")
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/", depth + 1)
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def find_name(name: str, given: Iterable[str]) -> str | None:
    """The given name that means ``name``, or None if there is none or there are several.

    These are tried in order: the same name; the last part of a path ("observation/wrist",
    "observation.images.wrist"); the last part without words such as "image", "rgb" or "cam"
    ("wrist_image", "cam_wrist").
    """
    given = list(given)
    if name in given:
        return name
    for short in (_last_part, _plain):
        found = [g for g in given if short(g) == short(name) and short(name)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _last_part(name: str) -> str:
    return re.split(r"[/.]", name)[-1]


def _plain(name: str) -> str:
    """The last part of a name without decoration, in lower case; may be empty."""
    words = re.split(r"[_\-\s]+", _last_part(name).lower())
    return "_".join(word for word in words if word not in _DECORATION)


def check_names(names: Mapping[str, str], cameras: Sequence[str]) -> None:
    """Check names of --camera OURS=THEIRS.

    Raises:
        ConfigError: the policy has no such camera.
    """
    unknown = next((name for name in names if name not in cameras), None)
    if unknown is not None:
        raise ConfigError(
            f"--camera {unknown}=...: the policy has no such camera; "
            f"choices: {', '.join(cameras) or 'none'}"
        )


def match_cameras(
    cameras: Sequence[str],
    given: Sequence[str],
    names: Mapping[str, str],
    how: str,
    where: str = "the observation",
) -> dict[str, str]:
    """Camera of the policy -> name of its image in the observation.

    If the policy has one camera and the observation one image, their names may differ. This is
    printed.

    Args:
        cameras: of the policy.
        given: names of the images in the observation.
        names: camera of the policy -> name in the observation, as far as the user mapped them.
        how: how to map a name, for the error message; "{camera}" is replaced.
        where: what has the images, for the error message.

    Raises:
        ValueError: a camera has no image, or two cameras have the same; the message lists both
            sides.
    """
    found: dict[str, str] = {}
    for camera in cameras:
        wanted = names.get(camera, camera)
        name = find_name(wanted, given)
        if name is None and camera not in names and len(cameras) == len(given) == 1:
            name = given[0]
            note(f"camera {camera!r} of the policy gets the only image, {name[:100]!r}")
        if name is None or name in found.values():
            ours, theirs = ", ".join(cameras), ", ".join(given) or "none"
            text = repr(camera) if wanted == camera else f"{camera!r} (mapped to {wanted!r})"
            if name is not None:
                text += f" of its own (camera {_key_of(found, name)!r} has {name!r})"
            raise ValueError(
                f"no image for camera {text}; the policy has {ours}, {where} has {theirs}; "
                f"{how.format(camera=camera)}"
            )
        found[camera] = name
    return found


def _key_of(mapping: Mapping[str, str], value: str) -> str:
    return next(k for k, v in mapping.items() if v == value)


def joined_state(
    fields: Mapping[str, Any],
    names: Sequence[str],
    how: str,
    where: str = "the observation",
) -> np.ndarray:
    """(P,) float32: the numbers of the fields ``names``, joined in this order.

    Args:
        fields: flat names to values.
        names: names of the fields, as for ``find_name``.
        how, where: as for ``match_cameras``.

    Raises:
        ValueError: a field is missing or is no number or array of numbers.
        NotFinite: a number is NaN or infinite.
    """
    parts = []
    for name in names:
        key = find_name(name, fields)
        if key is None:
            raise ValueError(
                f"no {name!r} for the state; {where} has {', '.join(fields) or 'nothing'}; {how}"
            )
        value = fields[key]
        count = value.size if isinstance(value, np.ndarray) else 1
        items = value if isinstance(value, list) else [value]
        if count > MAX_STATE or any(isinstance(item, str | bytes) for item in items):
            raise ValueError(f"the state must be numbers, at most {MAX_STATE}; {key!r} is not")
        try:
            with np.errstate(over="ignore"):  # infinity is refused below
                parts.append(np.asarray(value, np.float32).reshape(-1))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"the state must be numbers; {key!r} is not ({error})") from error
    state: np.ndarray = np.concatenate(parts)
    if not np.isfinite(state).all():
        raise NotFinite("the state must be finite numbers; it has NaN or infinity")
    return state


def image_fields(fields: Mapping[str, Any]) -> list[str]:
    """Names of the arrays that have the shape of one image, also (1, H, W, C) and grey (H, W)."""
    return [
        name
        for name, value in fields.items()
        if isinstance(value, np.ndarray)
        and (
            value.ndim == 3
            or (value.ndim == 4 and value.shape[0] == 1)
            or (value.ndim == 2 and min(value.shape) >= 8)  # smaller: a table of numbers
        )
    ]
