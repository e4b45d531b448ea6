"""Which way up LIBERO's images are, and where a point is in the image of a MuJoCo camera."""

from __future__ import annotations

from typing import Any

import numpy as np

_LEAST = 40  # change of a pixel's colours, summed, that counts


def oriented(upright: np.ndarray, rotate: bool) -> np.ndarray:
    """An upright image (S, S, 3) as published evaluations have it, mirrored.

    Without ``rotate`` it is upside down, as robosuite gives it and as HDF5 demonstrations have it.
    Published evaluations rotate that image by 180 degrees.
    """
    return np.ascontiguousarray(np.flip(upright, 1 if rotate else 0))


def projected(point: np.ndarray, data: Any, camera: Any, size: int) -> np.ndarray:
    """Column and row (px) of a point (m) in the upright square image of a camera.

    Args:
        data: MuJoCo's data, with the pose of the camera.
        camera: MuJoCo's view of the camera in the model, with its ``id`` and ``fovy`` (degrees).
        size: side of the image, px.
    """
    axes = data.cam_xmat[camera.id].reshape(3, 3)  # right, up, backwards
    right, up, back = axes.T @ (point - data.cam_xpos[camera.id])
    focal = size / 2 / np.tan(np.deg2rad(float(np.ravel(camera.fovy)[0])) / 2)
    middle = (size - 1) / 2
    return np.array([middle + focal * right / -back, middle - focal * up / -back])


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """Mean column and row (px) where two images (S, S, 3) differ; None: in under 10 pixels."""
    rows, columns = np.nonzero(np.abs(before - after.astype(int)).sum(2) > _LEAST)
    return None if len(rows) < 10 else np.array([columns.mean(), rows.mean()])


def nearest_way(pixel: np.ndarray, seen: np.ndarray, size: int) -> tuple[str, float]:
    """Which flip of the upright image takes ``pixel`` nearest to ``seen``, and the distance (px).

    Returns:
        "upright", "mirrored" (left and right), "upside down" (top and bottom) or "turned" (both).
    """
    other = size - 1 - pixel
    ways = {
        "upright": pixel,
        "mirrored": np.array([other[0], pixel[1]]),
        "upside down": np.array([pixel[0], other[1]]),
        "turned": other,
    }
    distances = {way: float(np.linalg.norm(place - seen)) for way, place in ways.items()}
    nearest = min(distances, key=distances.__getitem__)
    return nearest, distances[nearest]
