"""Camera images and states as people have them, to the form that policies need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vla.data.readers.files import SKIP_BAD
from vla.data.readers.pixels import decode_pixels
from vla.errors import BadSample
from vla.policies.spec import MAX_SIDE, RobotSpec
from vla.utils.resize import fit_image


@dataclass(frozen=True)
class ObservationBatch:
    """Input of ``BasePolicy.predict``. single: the caller gave one observation, not a list."""

    images_BVTCHW: torch.Tensor
    instructions: list[str]
    state_BTP: torch.Tensor | None
    single: bool


def observation_batch(
    spec: RobotSpec, images: Any, instruction: str | Sequence[str], state: Any = None
) -> ObservationBatch:
    """One observation, or a list of observations, as a batch with one frame of history.

    Args:
        spec: the robot.
        images: as for ``camera_images``, or a list or tuple of these.
        instruction: one text for all observations, or one for each.
        state: (P,) numbers in robot units, or (B, P) for a list.
            Ignored if the policy has no state.

    Raises:
        ValueError: the policy needs frame history, or an input is missing or invalid.
    """
    if spec.history > 1:
        raise ValueError(
            f"this policy needs a history of {spec.history} frames; "
            "use vla.inference.runner.PolicyRunner, which keeps the history"
        )
    single = not isinstance(images, list | tuple)
    rows = [camera_images(spec, one) for one in ([images] if single else images)]
    if not rows:
        raise ValueError("images: the list is empty; give at least one observation")
    views = np.zeros((len(rows), 0, 0, 0, 3), np.uint8)  # of a policy without cameras
    if spec.cameras:
        views = np.stack([[row[camera] for camera in spec.cameras] for row in rows])
    return ObservationBatch(
        torch.from_numpy(views).permute(0, 1, 4, 2, 3)[:, :, None].contiguous(),
        _instructions(instruction, len(rows), single),
        _state(spec, state, len(rows), single),
        single,
    )


def camera_images(spec: RobotSpec, images: Any) -> dict[str, np.ndarray]:
    """{camera: (H, W, 3) uint8} in the policy's camera order and image size.

    Args:
        spec: the robot.
        images: a mapping from camera to image; or one image, if the policy has one camera. An image
            is a numpy array or torch tensor, see ``camera_image``. {} for a policy without cameras.

    Raises:
        ValueError: a camera is missing or unknown, or an image has another type or shape.
    """
    names = ", ".join(spec.cameras) or "no cameras"
    if not isinstance(images, Mapping):
        if len(spec.cameras) != 1:
            raise ValueError(
                f"this policy has {len(spec.cameras)} cameras ({names}); "
                "give a dict with one image for each camera"
            )
        images = {spec.cameras[0]: images}
    given = ", ".join(map(str, images)) or "none"
    for camera in spec.cameras:
        if camera not in images:
            raise ValueError(
                f"no image for camera {camera!r}; "
                f"the policy has {names}, the observation has {given}"
            )
    for camera in images:
        if camera not in spec.cameras:
            raise ValueError(f"unknown camera {camera!r}; the policy has {names}")
    return {c: camera_image(images[c], c, spec) for c in spec.cameras}


def camera_image(image: Any, camera: str, spec: RobotSpec) -> np.ndarray:
    """(H, W, 3) uint8, brought to the policy's image size as the training images were.

    Args, Raises: as for ``rgb_image``.
    """
    pixels = rgb_image(image, camera)
    if min(spec.image_size) > 0:
        pixels = fit_image(pixels, spec.image_size, spec.image_fit)
    return np.ascontiguousarray(pixels)


def rgb_image(image: Any, camera: str, peak: float | None = None) -> np.ndarray:
    """(H, W, 3) uint8 of the image's own size.

    Args:
        image: (H, W, 3) uint8. Also accepted: channels first, one channel (grey), four channels
            (alpha is dropped), a batch of one, and floats from 0 to 1 or numbers from 0 to 255.
        camera: name, for error messages.
        peak: largest value that this camera can have, if known: 1 or 255.

    Raises:
        ValueError: not such an image, or a side above ``MAX_SIDE``; the message says what was
            given.
    """
    wanted = f"camera {camera!r}: expected an (H, W, 3) uint8 image"
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"{wanted}, a numpy array or torch tensor; got {type(image).__name__}; "
            "convert it with numpy.asarray"
        )
    if image.ndim == 4 and image.shape[0] == 1:  # a batch of one
        image = image[0]
    if image.ndim not in (2, 3) or min(image.shape) < 1:
        advice = "; give a batch as a list of images" if image.ndim == 4 else ""
        raise ValueError(f"{wanted}; got shape {image.shape}{advice}")
    if max(image.shape) > MAX_SIDE:
        raise ValueError(
            f"{wanted} of at most {MAX_SIDE} pixels a side; got shape {image.shape}; resize it"
        )
    try:
        pixels = decode_pixels(image, wanted, peak=peak)
    except BadSample as error:
        raise ValueError(str(error).removesuffix(f"; {SKIP_BAD}")) from error
    if pixels.ndim == 2:
        raise ValueError(
            f"{wanted}; got {image.dtype} values of one channel up to {image.max():g}, a depth "
            "image; convert it to colours as for the training data"
        )
    return pixels


def _instructions(instruction: str | Sequence[str], count: int, single: bool) -> list[str]:
    given = [instruction] * count if isinstance(instruction, str) else list(instruction)
    if single and not isinstance(instruction, str):
        raise ValueError(f"instruction: expected one text for one observation, got {instruction!r}")
    if len(given) != count:
        raise ValueError(
            f"instruction: expected one text, or {count} texts for {count} observations; "
            f"got {len(given)}"
        )
    for text in given:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"instruction: expected a text that is not empty, got {text!r}; "
                "for example 'pick up the red apple'"
            )
    return given


def _state(spec: RobotSpec, state: Any, count: int, single: bool) -> torch.Tensor | None:
    if not spec.state_dim:
        return None
    shape = (spec.state_dim,) if single else (count, spec.state_dim)
    wanted = f"state: this policy needs {shape} finite numbers in robot units"
    if state is None:
        raise ValueError(f"{wanted}; got none; give state=...")
    try:
        values = np.asarray(state, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wanted}; got {type(state).__name__} ({error})") from error
    if values.shape != shape or not np.isfinite(values).all():
        problem = f"shape {values.shape}" if values.shape != shape else "NaN or infinity"
        raise ValueError(f"{wanted}; got {problem}")
    return torch.from_numpy(values).reshape(count, 1, spec.state_dim)
