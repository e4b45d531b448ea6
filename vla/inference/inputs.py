"""Observations as tensors in the policy's camera order and size."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vla.policies.names import match_cameras
from vla.policies.observations import camera_image
from vla.policies.spec import RobotSpec

# {"images": {camera: image}, "instruction": str} and, if used, "state": (P,) float; images are
# brought to the policy's size, see ``camera_image``
Observation = Mapping[str, Any]


def blank_observation(spec: RobotSpec) -> Observation:
    """Black images and a zero state, for the first call, which is slow."""
    height, width = (side or 224 for side in spec.image_size)  # 0: any size
    images = dict.fromkeys(spec.cameras, np.zeros((height, width, 3), np.uint8))
    state = np.zeros(spec.state_dim, np.float32)
    return {"images": images, "state": state, "instruction": "wait"}


def to_images(observation: Observation, spec: RobotSpec) -> torch.Tensor:
    """An observation's images as (V, 1, 3, H, W) uint8 in the policy's camera order and size.

    A policy without cameras gets (0, 1, 3, 0, 0), whatever images the observation has.

    Raises:
        ValueError: a camera of the policy has no image of its name, or an image is invalid.
    """
    if not spec.cameras:
        return torch.zeros((0, 1, 3, 0, 0), dtype=torch.uint8)
    images = observation["images"]
    names = match_cameras(spec.cameras, list(images), {}, "rename one of them")
    views = [camera_image(images[names[c]], c, spec) for c in spec.cameras]
    if len({view.shape for view in views}) > 1:
        sizes = ", ".join(f"{c} {v.shape}" for c, v in zip(spec.cameras, views, strict=True))
        raise ValueError(f"the images of one observation must have one size; got {sizes}")
    array = np.stack(views) if views else np.zeros((0, *spec.image_size, 3), np.uint8)
    return torch.from_numpy(array).permute(0, 3, 1, 2)[:, None]


def to_state(observation: Observation, width: int) -> torch.Tensor:
    """An observation's measured state as (1, width) float32.

    Raises:
        ValueError: the observation has no state, or one of another width.
    """
    shape = np.shape(observation["state"]) if "state" in observation else ()
    if shape != (width,):
        raise ValueError(
            f"the policy needs a state of {width} numbers; the observation has {shape or 'none'}"
        )
    return torch.from_numpy(np.asarray(observation["state"])).float()[None]


def row_seed(instruction: str, calls: int, tensors: Sequence[torch.Tensor]) -> int:
    """Seed of one row's random tokens: a checksum of the observation, and the call's number.

    An episode then has the same tokens whatever episodes run beside it.
    """
    seed = zlib.crc32(instruction.encode(), calls)
    for tensor in tensors:
        seed = zlib.crc32(tensor.contiguous().numpy().tobytes(), seed)
    return seed
