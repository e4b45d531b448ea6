"""One Meta-World task as an environment of ``Benchmark``."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.lazy_images import LazyImages
from vla.benchmarks.mujoco_images import ModelRenderer, backend

backend()  # sets MUJOCO_GL before MuJoCo is imported
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations of libraries that these packages use
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

CAMERA = "corner2"
CAMERA_POSITION = (0.75, 0.075, 0.7)  # m; the position in LeRobot and in arXiv 2206.14244


class MetaWorldEnv(gym.Env[dict[str, Any], np.ndarray]):
    """Observations ``{"images": {camera: (S, S, 3) uint8}, "state": (4,) float32, "instruction"}``.

    Images are rendered when they are read (``LazyImages``). The state has the hand's position (m)
    and the opening of the gripper (0 to 1). Actions are (4,) in [-1, 1]: movements of the hand in
    cm, and the effort of the gripper. The seed of ``reset`` determines the positions of objects
    and goal. The first success ends an episode.

    Args:
        task: name without the version, for example "drawer-open".
        camera: name of the image.
        size: side of the image, px.
        fast: render without shadows, reflections and multisampling.

    Raises:
        ConfigError: (when an image is read) no OpenGL context can be made.
    """

    def __init__(
        self, task: str, instruction: str, camera: str, size: int, fast: bool, max_steps: int
    ) -> None:
        self.instruction, self.camera, self.size, self.fast = instruction, camera, size, fast
        self.max_steps, self.steps = max_steps, 0
        env: Any = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        env.seeded_rand_vec, env._freeze_rand_vec = True, False  # positions follow ``seed``
        env._partially_observable = False  # the expert reads the goal's position
        del env.sawyer_observation_space  # computed with the goal from now on
        env._set_task_called = True
        env.model.cam_pos[env.model.camera(CAMERA).id] = CAMERA_POSITION
        self.simulator = env
        self.full_state = np.zeros(39)  # the observation of Meta-World, for the expert
        self._renderer: ModelRenderer | None = None
        self._images = LazyImages({})
        bounds = np.ones(4, np.float32)
        self.action_space = gym.spaces.Box(-bounds, bounds)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in gymnasium."""
        super().reset(seed=seed)
        self._images.expire()
        self.simulator.seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        self.full_state, _ = self.simulator.reset()
        # Otherwise the first image shows the goal of the episode before.
        mujoco.mj_forward(self.simulator.model, self.simulator.data)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """As in gymnasium; ``info["success"]`` is True at the first success."""
        self._images.expire()
        clipped = np.clip(action, -1, 1).astype(np.float32)
        self.full_state, reward, _, _, info = self.simulator.step(clipped)
        self.steps += 1
        success = bool(info["success"])
        truncated = self.steps >= self.max_steps
        return self._observe(), float(reward), success, truncated, {"success": success}

    def _observe(self) -> dict[str, Any]:
        self._images = LazyImages({self.camera: self.render})
        state = self.full_state[:4].astype(np.float32)
        return {"images": self._images, "state": state, "instruction": self.instruction}

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The image (S, S, 3) uint8 of the present state, upright as in the published protocol."""
        if self._renderer is None:
            self._renderer = ModelRenderer(self.simulator.model, self.size, self.fast)
        image = self._renderer.image(self.simulator.data, CAMERA)
        return np.ascontiguousarray(np.flip(image, (0, 1)))

    def close(self) -> None:
        """Free the OpenGL context."""
        self._images.expire()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def expert(task: str) -> Any:
    """Meta-World's scripted policy of a task; its ``get_action`` reads ``full_state``."""
    policies: dict[str, Any] = ENV_POLICY_MAP
    return policies[f"{task}-v3"]()
