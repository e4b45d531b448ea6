"""Any gymnasium environment that yields images, seen as the tabletop is: images by camera, an instruction, perhaps a state."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


def is_image(value: Any) -> bool:
    """(H, W, 3) uint8."""
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[-1] == 3


class ImageEnvironment(gym.Wrapper[dict[str, Any], np.ndarray, Any, np.ndarray]):
    """Observations become ``{"images": {camera: (H, W, 3) uint8}, "instruction": str[, "state"]}``.

    Images are found in the observation (an image, or a dictionary with images in it) or, when it has none, rendered
    (``render_mode="rgb_array"``). ``cameras`` names them in the order found; ``instruction`` is used when the environment gives none.
    ``info["success"]`` is kept when the environment reports it (or ``is_success``).

    Raises:
        ValueError: no image anywhere, or fewer images than cameras.
    """

    def __init__(self, env: gym.Env[Any, Any], cameras: tuple[str, ...], instruction: str = "") -> None:
        super().__init__(env)
        self.cameras, self.instruction = cameras, instruction

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """As gymnasium's."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._adapt(observation), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """As gymnasium's."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return (
            self._adapt(observation),
            float(reward),
            terminated,
            truncated,
            {"success": bool(info.get("is_success", False))} | info,
        )

    def _adapt(self, observation: Any) -> dict[str, Any]:
        if isinstance(observation, dict) and isinstance(observation.get("images"), dict):
            return observation if "instruction" in observation else observation | {"instruction": self.instruction}
        fields = observation if isinstance(observation, dict) else {"image": observation}
        images = [v for v in fields.values() if is_image(v)]
        if not images:
            frame = self.env.render() if self.env.render_mode == "rgb_array" else None
            images = [frame] if is_image(frame) else []
        if len(images) < len(self.cameras):
            raise ValueError(
                f"{self.env}: found {len(images)} images (H, W, 3) uint8 in its observation, the policy needs {', '.join(self.cameras)}; "
                "make the environment with render_mode=rgb_array or wrap its observation"
            )
        state = fields.get("state", fields.get("agent_pos"))
        adapted: dict[str, Any] = {"images": dict(zip(self.cameras, images, strict=False))}
        adapted["instruction"] = str(fields.get("instruction", self.instruction))
        return adapted if state is None else adapted | {"state": np.asarray(state, np.float32)}
