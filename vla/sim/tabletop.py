"""``vla/Tabletop-v0``: a robot above a table of pictures, obeying instructions. Deterministic from its seed, no GL."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from vla.sim.layouts import LAYOUTS, to_command
from vla.sim.render import Look, render_top, render_wrist, sample_look
from vla.sim.scene import SceneConfig, sample_tasks
from vla.sim.suites import CELLS, sample_cell
from vla.sim.tasks import Task
from vla.sim.world import HALF_TABLE, HOVER_Z, TILT_LIMIT, World

CAMERAS = {"top": render_top, "wrist": render_wrist}
STATE_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "aperture")  # m, m, m, rad, rad, rad, share open
STEP_LIMIT = 36  # control steps; the expert stays well below half of it (tests/test_sim.py)
GRACE = 3  # control steps after success in which the policy may say "terminate"


class Tabletop(gym.Env[dict[str, Any], np.ndarray]):
    """Gymnasium environment.

    Observation: ``{"images": {camera: (S, S, 3) uint8}, "state": (7,) float32, "instruction": str}``.
    Action: (A,) float32 in robot units of the layout (``rt2`` 8 dims, ``rt1`` 11). A wrong shape or a NaN raises ValueError; values
    out of range are clipped and counted in ``info["clipped"]``.
    Reward 1 at the step that first satisfies the task's predicate. The episode ends when the policy says terminate after that, three
    steps later, at once when a wrong tile is lifted, or (truncated) at the step limit. ``info``: success, failed,
    terminated_rightly, early_terminations, clipped, skill.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(
        self,
        scene: SceneConfig | dict[str, Any] | None = None,
        cameras: tuple[str, ...] = ("top",),
        size: int = 128,
        layout: str = "rt2",
        step_limit: int = STEP_LIMIT,
        render_mode: str | None = "rgb_array",
    ) -> None:
        unknown = [c for c in cameras if c not in CAMERAS]
        if unknown or not cameras:
            raise ValueError(f"unknown camera {unknown}; the tabletop has {', '.join(CAMERAS)}")
        if layout not in LAYOUTS:
            raise ValueError(f"unknown action layout {layout!r}; choose {' or '.join(LAYOUTS)}")
        if size < 16 or step_limit < 1:
            raise ValueError(f"size={size} must be at least 16 px and step_limit={step_limit} at least 1")
        self.scene = scene if isinstance(scene, SceneConfig) else SceneConfig(**(scene or {}))
        self.cameras, self.size, self.layout, self.step_limit = tuple(cameras), size, layout, step_limit
        self.render_mode = render_mode
        self.space = LAYOUTS[layout]
        low, high = np.array(self.space.low, np.float32), np.array(self.space.high, np.float32)
        self.action_space = gym.spaces.Box(low, high)
        bound = np.array([HALF_TABLE, HALF_TABLE, HOVER_Z, TILT_LIMIT, TILT_LIMIT, np.pi, 1.0], np.float32)
        floor = -bound * np.array([1, 1, 0, 1, 1, 1, 0], np.float32)
        image = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gym.spaces.Dict(
            images=gym.spaces.Dict(dict.fromkeys(self.cameras, image)),
            state=gym.spaces.Box(floor, bound),
            instruction=gym.spaces.Text(
                200, charset=frozenset("abcdefghijklmnopqrstuvwxyz -’'.&" + "áàâãäåæçéèêëíìîïñóòôõöøœúùûüýÿß")
            ),
        )
        self.world: World
        self.task: Task
        self.look: Look

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new scene and task. ``options={"skill": name}`` fixes the skill, or names a cell of ``vla.sim.suites``; ``{"recording": [...]}``, from a recorded
        episode's info, gives the scene it began with."""
        super().reset(seed=seed)
        options = options or {}
        if "recording" in options:
            begin, index, alternatives = options["recording"]
            rng = np.random.default_rng([begin, index])
            self.world, (self.task, *_) = sample_tasks(self.scene, rng, 1 + alternatives)
            self.look = sample_look(rng)
        elif options.get("skill") in CELLS:
            self.world, self.task, self.look = sample_cell(str(options["skill"]), self.scene, self.np_random)
        else:
            self.world, (self.task,) = sample_tasks(self.scene, self.np_random, 1, options.get("skill"))
            self.look = sample_look(self.np_random)
        self._asked = str(options["skill"]) if options.get("skill") in CELLS else self.task.skill
        self._steps = self._clipped = self._early = 0
        self._success_at: int | None = None
        return self._observation(), self._info(False, False)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step of 0.2 s."""
        action = np.asarray(action, np.float64)
        if action.shape != (self.space.dim,):
            raise ValueError(f"action has shape {action.shape}, expected ({self.space.dim},): {', '.join(self.space.names)}")
        if not np.isfinite(action).all():
            bad = [n for n, v in zip(self.space.names, action, strict=True) if not np.isfinite(v)]
            raise ValueError(f"action is not finite in {', '.join(bad)}")
        clipped = np.clip(action, self.space.low, self.space.high)
        self._clipped += int((np.abs(clipped - action) > 1e-6).any())
        command = to_command(self.layout, clipped)
        done_before = self._success_at is not None
        self.world.step(command)
        self._steps += 1
        reward = 0.0
        if self._success_at is None and self.task.succeeded(self.world):
            self._success_at, reward = self._steps, 1.0
        failed = self._success_at is None and self.task.failed(self.world)
        rightly = command.terminate and done_before
        self._early += int(command.terminate and not done_before)
        grace_over = self._success_at is not None and self._steps >= self._success_at + GRACE
        terminated = failed or rightly or grace_over
        truncated = not terminated and self._steps >= self.step_limit
        return self._observation(), reward, terminated, truncated, self._info(failed, rightly)

    def render(self) -> np.ndarray:
        """The top camera, (size, size, 3) uint8."""
        return render_top(self.world.items, self.world.gripper, self.look, self.size)

    def _observation(self) -> dict[str, Any]:
        g = self.world.gripper
        return {
            "images": {c: CAMERAS[c](self.world.items, g, self.look, self.size) for c in self.cameras},
            "state": np.array([g.x, g.y, g.z, g.roll, g.pitch, g.yaw, g.aperture], np.float32),
            "instruction": self.task.instruction,
        }

    def _info(self, failed: bool, rightly: bool) -> dict[str, Any]:
        return {
            "success": self._success_at is not None,
            "failed": failed,
            "terminated_rightly": rightly,
            "early_terminations": self._early,
            "clipped": self._clipped,
            "skill": self._asked,
        }


gym.register(id="vla/Tabletop-v0", entry_point="vla.sim.tabletop:Tabletop")
