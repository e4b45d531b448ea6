"""Images and numbers of an exported policy between a robot and its graphs; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla.errors import ActionError
from vla.policies.bounds import within_bounds


def camera_views(spec: Mapping[str, Any], images: Any) -> np.ndarray:
    """(V, H, W, 3) uint8 of the policy's cameras in order, in the policy's image size.

    Raises:
        ValueError: a camera is missing or unknown, or an image is no (H, W, 3) uint8 array.
    """
    cameras, size, views = spec["cameras"], tuple(spec["image_size"]), []
    if not isinstance(images, Mapping) and len(cameras) == 1:
        images = {cameras[0]: images}
    if not isinstance(images, Mapping) or sorted(images) != sorted(cameras):
        given = ", ".join(map(str, images)) if isinstance(images, Mapping) else "one image"
        raise ValueError(f"images: expected a dict with {', '.join(cameras)}; got {given}")
    for camera in cameras:
        image = np.asarray(images[camera])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"camera {camera!r}: expected an (H, W, 3) uint8 image; "
                f"got shape {image.shape} of {image.dtype}"
            )
        if image.shape[:2] != size:
            from vla.utils.resize import fit_image  # needs Pillow

            image = fit_image(image, size, spec["image_fit"])
        views.append(image)
    return np.stack(views)


def chunk_values(table: Mapping[str, Any], symbols: Sequence[Sequence[int]]) -> np.ndarray:
    """Normalised actions (B, H, A) float32 of the symbols of whole chunks."""
    dim = len(table["symbols"])
    if table["values"] is not None:
        values_SA = np.array(table["values"], np.float32)
        index = np.array(symbols).reshape(len(symbols), -1, dim)
        return values_SA[index, np.arange(dim)]
    codes = np.array([[c for s in row for c in table["codes"][s]] for row in symbols], np.float64)
    coefficients = codes.reshape(len(symbols), -1, dim) / table["scale"]
    return np.einsum("th,bha->bta", np.array(table["inverse"]), coefficients).astype(np.float32)


def robot_units(
    spec: Mapping[str, Any],
    units: Mapping[str, Any],
    normalized_BHA: np.ndarray,
    state_BTP: np.ndarray | None,
) -> np.ndarray:
    """Actions (B, H, A) in robot units within the bounds, from actions in [-1, 1].

    Raises:
        ValueError: the actions are relative to a state that is missing.
        ActionError: an action is NaN or infinite.
    """
    span, centre = (np.array(units[k], np.float32) for k in ("span", "centre"))
    actions = _or_fixed(normalized_BHA * span + centre, units["constant"])
    space, dims = spec["action_space"], np.array(spec["relative"], np.int64)
    if dims.size:
        if state_BTP is None or state_BTP.shape[-1] != spec["state_dim"]:
            raise ValueError(
                "this policy predicts actions relative to the measured state: "
                f"give a state of {spec['state_dim']} numbers"
            )
        current_BP = state_BTP[:, -1]
        actions = actions + np.where(dims >= 0, current_BP[:, dims], np.float32(0))[:, None]
        actions = _or_fixed(actions, units["fixed"])
    keys = ("names", "low", "high", "binary", "integer")
    legal = within_bounds(actions, *(space[k] for k in keys))
    if not np.isfinite(normalized_BHA).all() or not np.isfinite(legal).all():
        raise ActionError(
            "the policy's actions are not finite and are not executed; check the observation "
            "(sizes and units)"
        )
    return legal


def _or_fixed(actions: np.ndarray, fixed: Any) -> np.ndarray:
    """Actions with the recorded value of each dimension that never moves (None: it moves)."""
    values = np.array(fixed, np.float32)  # None becomes NaN
    return np.where(np.isnan(values), actions, values)
