"""A wrapper that gives the observations of any gymnasium environment the form of ``Benchmark``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from vla.errors import ConfigError
from vla.policies.names import find_name, flatten, image_fields, joined_state, match_cameras
from vla.policies.observations import rgb_image
from vla.utils.notes import note

RENDERED = "image"  # name of the rendered image
STATES = ("state", "agent_pos")  # fields that are the state if none are named


class ImageEnvironment(gym.Wrapper[dict[str, Any], np.ndarray, Any, np.ndarray]):
    """Converts observations to those of ``Benchmark``; actions are clipped to the action space.

    Images are the observation itself or entries of a (nested) dictionary, "pixels/top". If there
    are none, ``render()`` is used (``render_mode="rgb_array"``). Cameras are matched by name, see
    ``match_cameras``.

    Args:
        cameras: of the policy; empty: the environment's own names.
        instruction: used if the observation has none.
        names: camera of the policy -> name in the observation, where they differ.
        state: names of the observation's fields that form the state, in order; empty: ``STATES``.

    Raises:
        ConfigError: (by ``reset`` and ``step``) a camera has no image of its name, or an image or
            the state is invalid.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        cameras: tuple[str, ...],
        instruction: str = "",
        names: Mapping[str, str] | None = None,
        state: Sequence[str] = (),
    ) -> None:
        super().__init__(env)
        self.cameras, self.instruction = cameras, instruction
        self.names, self.state = dict(names or {}), list(state)
        self.id = env.spec.id if env.spec else type(env.unwrapped).__name__
        self.peaks = _peaks(env.observation_space if hasattr(env, "observation_space") else None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in gymnasium."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._convert(observation), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """As in gymnasium; ``info["success"]`` is taken from "is_success" if it is missing."""
        box = self.env.action_space
        if isinstance(box, gym.spaces.Box):
            action = np.clip(action, box.low, box.high).astype(box.dtype)
        observation, reward, terminated, truncated, info = self.env.step(action)
        if (terminated or truncated) and not {"success", "is_success"} & info.keys():
            note(
                f"{self.id} reports neither info['success'] nor info['is_success']; "
                "every episode counts as failed"
            )
        info = {"success": bool(info.get("is_success", False))} | info
        return self._convert(observation), float(reward), terminated, truncated, info

    def _convert(self, observation: Any) -> dict[str, Any]:
        try:
            return self._converted(observation)
        except ValueError as error:
            raise ConfigError(f"{self.id}: {error}") from error

    def _converted(self, observation: Any) -> dict[str, Any]:
        is_mapping = isinstance(observation, Mapping)
        fields = flatten(observation if is_mapping else {RENDERED: observation})
        instruction = str(fields.pop("instruction", self.instruction))
        if not instruction.strip():
            note(f"{self.id} gives no instruction; set instruction='...'")
        state = self._state(fields)
        if not image_fields(fields):
            if self.env.render_mode != "rgb_array":
                raise ValueError(
                    f"no image in its observation ({', '.join(fields)}); set "
                    "options.render_mode=rgb_array, or wrap the environment to add images"
                )
            fields = {RENDERED: np.asarray(self.env.render())}
        images = {
            camera: rgb_image(fields[name], camera, self.peaks.get(name))
            for camera, name in self._matched(fields).items()
        }
        return {"images": images, "instruction": instruction} | state

    def _matched(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Camera -> name of its field."""
        given = image_fields(fields)
        if not self.cameras:
            short = {name.rsplit("/", 1)[-1]: name for name in given}
            return short if len(short) == len(given) else {name: name for name in given}
        how = "name it with cameras.{camera}=NAME"
        return match_cameras(self.cameras, given, self.names, how, "the environment")

    def _state(self, fields: dict[str, Any]) -> dict[str, np.ndarray]:
        """The entry "state", if there is one."""
        names = self.state or [n for n in STATES if find_name(n, fields)][:1]
        how = "name the fields with state=[NAME,NAME]"
        return {"state": joined_state(fields, names, how, self.id)} if names else {}


def _peaks(space: Any, prefix: str = "") -> dict[str, float]:
    """Flat name of an observation -> declared upper bound, where it has a finite one."""
    if isinstance(space, gym.spaces.Dict):
        parts = (_peaks(part, f"{prefix}/{key}") for key, part in space.spaces.items())
        return {name: peak for part in parts for name, peak in part.items()}
    if not isinstance(space, gym.spaces.Box) or not np.isfinite(space.high).all():
        return {}
    return {prefix.strip("/") or RENDERED: float(space.high.max())}
