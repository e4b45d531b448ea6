"""A wrapper that gives the observations of any gymnasium environment the form of ``Benchmark``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from vla.benchmarks.gym_actions import VectorActions
from vla.benchmarks.lazy_images import LazyImages
from vla.errors import ConfigError, EnvironmentFailed
from vla.policies.names import (
    NotFinite,
    find_name,
    flatten,
    image_fields,
    joined_state,
    match_cameras,
)
from vla.policies.observations import rgb_image
from vla.utils.notes import note

Pixels = Literal["auto", "observation", "render"]
RENDERED = "image"  # name of the rendered image, and of an observation that is one image
VECTOR = "state"  # name of an observation that is no image and has no names
STATES = (
    "state",
    "agent_pos",
    "proprio",
    "observation",
)  # fields that are the state if none are named
INSTRUCTIONS = ("instruction", "language_instruction", "mission", "task_description")
_SMALL = 16  # px; an image of a smaller side may be a grid of codes


class ImageEnvironment(gym.Wrapper[dict[str, Any], np.ndarray, Any, Any]):
    """Converts observations to those of ``Benchmark``, and vectors to the environment's actions.

    Images are the observation itself or entries of a (nested) dictionary, "pixels/top". If there
    are none, ``render()`` is called (``render_mode="rgb_array"``) when an image is read. Cameras
    are matched by name, see ``match_cameras``. Actions are clipped to the action space.

    Args:
        cameras: of the policy; empty: those of ``names``, else the environment's own.
        instruction: used if neither the observations nor ``info`` had one in this episode.
        names: camera of the policy -> name in the observation, where they differ.
        state: names of the observation's fields that form the state, in order; None: ``STATES``.
        pixels: "render" uses ``render()`` also if the observation has images; "observation" never.
        instruction_key: field of the observation or ``info`` with the instruction.
        actions: conversion of actions; None: that of the environment's action space.
        reset_options: options of ``reset``; those of the caller replace them.

    Raises:
        ConfigError: (by ``reset`` and ``step``) a camera has no image of its name, or an image,
            the state or the instruction is missing or invalid.
        EnvironmentFailed: ``render()`` raises an exception or gives no image.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        cameras: tuple[str, ...],
        instruction: str = "",
        names: Mapping[str, str] | None = None,
        state: Sequence[str] | None = None,
        pixels: Pixels = "auto",
        instruction_key: str | None = None,
        actions: VectorActions | None = None,
        reset_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(env)
        self.cameras, self.instruction = tuple(cameras or names or ()), instruction
        self.names, self.state = dict(names or {}), state if state is None else list(state)
        self.has_policy, self.pixels, self.instruction_key = bool(cameras), pixels, instruction_key
        self.actions = actions or VectorActions(env.action_space, 1.0)
        self.reset_options = dict(reset_options or {})
        self.id = env.spec.id if env.spec else type(env.unwrapped).__name__
        self.rendered = LazyImages({})  # of the last observation
        self.texts: dict[str, str] = {}  # the last texts of this episode by their names
        self.peaks = _peaks(getattr(env, "observation_space", None))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in gymnasium."""
        self.rendered.expire()
        self.texts = {}
        chosen = self.reset_options | (options or {})
        observation, info = self.env.reset(seed=seed, options=chosen or None)
        return self._convert(observation, info), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """As in gymnasium, with a vector (A,) as action."""
        self.rendered.expire()
        native = self.actions.decode(action)
        observation, reward, terminated, truncated, info = self.env.step(native)
        return self._convert(observation, info), float(reward), terminated, truncated, info

    def _convert(self, observation: Any, info: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._converted(named_fields(observation), info)
        except NotFinite as error:
            raise EnvironmentFailed(str(error)) from error
        except ValueError as error:
            raise ConfigError(f"{self.id}: {error}") from error

    def _converted(self, fields: dict[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
        instruction = self._instruction(fields, info)
        state = self._state(fields)
        images = self._images(fields)
        return {"images": images, "instruction": instruction} | state

    def _instruction(self, fields: dict[str, Any], info: Mapping[str, Any]) -> str:
        names = [self.instruction_key] if self.instruction_key else INSTRUCTIONS
        for name, known in product(names, (info, fields)):  # a text of the observation counts
            key = find_name(name, [k for k in known if isinstance(k, str)])
            value = known[key] if key is not None else None
            if isinstance(value, str | bytes) and value:
                self.texts[name] = value.decode() if isinstance(value, bytes) else str(value)
        text = next((self.texts[name] for name in names if name in self.texts), "")
        if self.instruction_key and not text:
            texts = [k for known in (fields, info) for k, v in known.items() if isinstance(v, str)]
            raise ValueError(
                f"no text {self.instruction_key!r} (instruction_key) in its observation or info; "
                f"texts are {', '.join(texts) or 'none'}"
            )
        text = text or self.instruction
        if not text.strip():
            note(f"{self.id} gives no instruction; set instruction='...'")
        return text

    def _images(self, fields: dict[str, Any]) -> Mapping[str, np.ndarray]:
        given = image_fields(fields)
        if self.pixels == "render" or (self.pixels == "auto" and not given):
            if self.env.render_mode == "rgb_array":
                self.rendered = LazyImages(
                    {camera: partial(self._render, camera) for camera in self._matched([RENDERED])}
                )
                return self.rendered
            if self.has_policy or self.pixels == "render":
                raise ValueError(
                    f"no image in its observation ({', '.join(fields)}); set "
                    "options.render_mode=rgb_array, or wrap the environment to add images"
                )
        matched = self._matched(given)
        for camera, name in matched.items():
            self._warn_of_codes(camera, fields[name])
        return {
            camera: rgb_image(fields[name], camera, self.peaks.get(name))
            for camera, name in matched.items()
        }

    def _render(self, camera: str) -> np.ndarray:
        try:
            return rgb_image(np.asarray(self.env.render()), camera)
        except Exception as error:  # environments raise any exception
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise EnvironmentFailed(f"{self.id}: render() failed ({reason[:300]})") from error

    def _warn_of_codes(self, camera: str, image: np.ndarray) -> None:
        if max(image.shape) < _SMALL:
            note(
                f"{self.id}: the image {camera!r} has the shape {image.shape}; if it is a grid of "
                "codes, use pixels=render, or wrappers=[module:Class] that draw it"
            )

    def _matched(self, given: Sequence[str]) -> dict[str, str]:
        """Camera -> name of its field."""
        if not self.cameras:
            short = {name.rsplit("/", 1)[-1]: name for name in given}
            return short if len(short) == len(given) else {name: name for name in given}
        how = "name it with cameras.{camera}=NAME"
        return match_cameras(self.cameras, given, self.names, how, "the environment")

    def _state(self, fields: dict[str, Any]) -> dict[str, np.ndarray]:
        """The entry "state", if there is one."""
        names = self.state
        if names is None:
            images = image_fields(fields)
            numbers = [n for n in fields if n not in images]
            names = [n for n in STATES if find_name(n, numbers)][:1]
            arrays = [n for n in numbers if isinstance(fields[n], np.ndarray)]
            if arrays and not names:
                note(
                    f"{self.id}: its observations give no state; name the fields with "
                    f"'state=[NAME,NAME]', choices: {', '.join(arrays)}"
                )
        how = "name the fields with state=[NAME,NAME]"
        return {"state": joined_state(fields, names, how, self.id)} if names else {}


def named_fields(observation: Any) -> dict[str, Any]:
    """An observation of any form as flat names to values.

    An array is called "image" if it has the shape of one, else "state", as a number is. The parts
    of a tuple are called "0", "1" and so on.
    """
    if isinstance(observation, Mapping):
        return flatten(observation)
    if isinstance(observation, tuple):
        return flatten({str(k): part for k, part in enumerate(observation)})
    if isinstance(observation, np.ndarray) and image_fields({RENDERED: observation}):
        return {RENDERED: observation}
    return {VECTOR: observation}


def shows_images(space: gym.Space[Any] | None) -> bool:
    """True if observations of a space have an image, and if the space is unknown (None)."""
    if space is None:
        return True
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        parts = space.values() if isinstance(space, gym.spaces.Dict) else space
        return any(shows_images(part) for part in parts)
    shape = space.shape if isinstance(space, gym.spaces.Box) else None
    return shape is not None and bool(image_fields({RENDERED: np.broadcast_to(0, shape)}))


def _peaks(space: Any, prefix: str = "") -> dict[str, float]:
    """Flat name of an observation -> declared upper bound, where it has a finite one."""
    if isinstance(space, gym.spaces.Dict):
        parts = (_peaks(part, f"{prefix}/{key}") for key, part in space.spaces.items())
        return {name: peak for part in parts for name, peak in part.items()}
    if not isinstance(space, gym.spaces.Box) or not np.isfinite(space.high).all():
        return {}
    return {prefix.strip("/") or RENDERED: float(space.high.max())}
