"""The gymnasium environment ``vla/Tabletop-v0``. It is deterministic from its seed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.tabletop.appearance import Appearance, sample_appearance
from vla.benchmarks.tabletop.layouts import LAYOUTS, check_layout, to_command
from vla.benchmarks.tabletop.render import render_top, render_wrist
from vla.benchmarks.tabletop.scene import SceneConfig, sample_tasks
from vla.benchmarks.tabletop.suites import SUITE_TASKS, sample_suite_task
from vla.benchmarks.tabletop.tasks import TabletopTask
from vla.benchmarks.tabletop.world import HALF_TABLE, HOVER_Z, TILT_LIMIT, Base, Gripper, World

CAMERAS = {"top": render_top, "wrist": render_wrist}
MAX_STEPS = 36  # control steps; the expert needs at most half of them (tests/test_tabletop.py)
TERMINATE_STEPS = 3  # control steps after success in which the policy may set "terminate"
# Characters of instructions; the second line is for words in other languages.
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz -’'.&")
_CHARACTERS |= frozenset("áàâãäåæçéèêëíìîïñóòôõöøœúùûüýÿß")


class Tabletop(gym.Env[dict[str, Any], np.ndarray]):
    """Observations ``{"images": {camera: (S, S, 3) uint8}, "state": (P,) float32, "instruction"}``.

    Actions are (A,) in the units of the layout. Values out of range are clipped.

    The reward is 1 at the first step at which the task is done. An episode terminates when the
    policy sets "terminate" after success, ``TERMINATE_STEPS`` after success, or when a wrong tile
    is lifted. It is truncated after ``max_steps``.

    ``info``:
        success: the task is done, or was done at an earlier step.
        failed: a wrong tile is lifted.
        correct_termination: the policy set "terminate" after success.
        early_terminations: steps at which the policy set "terminate" before success.
        clipped: steps whose action was out of range.
        base_steps: steps at which a mobile base moved.
        task: the skill or the suite task.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(
        self,
        scene: SceneConfig | dict[str, Any] | None = None,
        cameras: tuple[str, ...] = ("top",),
        size: int = 128,
        layout: str = "rt2",
        max_steps: int = MAX_STEPS,
        render_mode: str | None = "rgb_array",
        task: str | None = None,
        mobile_base: bool = False,
    ) -> None:
        unknown = [c for c in cameras if c not in CAMERAS]
        if unknown or not cameras:
            raise ValueError(f"unknown camera {unknown}; the tabletop has {', '.join(CAMERAS)}")
        check_layout(layout, mobile_base)
        if size < 16 or max_steps < 1:
            raise ValueError(
                f"size={size} must be at least 16 px and max_steps={max_steps} at least 1"
            )
        self.scene = scene if isinstance(scene, SceneConfig) else SceneConfig(**(scene or {}))
        self.cameras, self.size, self.layout = tuple(cameras), size, layout
        self.max_steps, self.render_mode, self.task_name = max_steps, render_mode, task
        self.space, self.mobile_base = LAYOUTS[layout], mobile_base
        low, high = np.array(self.space.low, np.float32), np.array(self.space.high, np.float32)
        self.action_space = gym.spaces.Box(low, high)
        gripper = [HALF_TABLE, HALF_TABLE, HOVER_Z, TILT_LIMIT, TILT_LIMIT, np.pi, 1.0]
        base = [2 * HALF_TABLE, 2 * HALF_TABLE, 2 * np.pi] if mobile_base else []
        state_high = np.array([*gripper, *base], np.float32)
        state_low = -state_high * np.array([1, 1, 0, 1, 1, 1, 0, *map(bool, base)], np.float32)
        image = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gym.spaces.Dict(
            images=gym.spaces.Dict(dict.fromkeys(self.cameras, image)),
            state=gym.spaces.Box(state_low, state_high),
            instruction=gym.spaces.Text(200, charset=_CHARACTERS),
        )
        self.world: World
        self.task: TabletopTask
        self.appearance: Appearance

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a new scene and task.

        Args:
            seed: determines scene, task and appearance.
            options: ``{"task": name}`` sets the skill or the suite task;
                ``{"recording": [...]}``, from the info of a recorded episode, restores its first
                state.
        """
        super().reset(seed=seed)
        options = options or {}
        name, rng = options.get("task", self.task_name), self.np_random
        alternatives = 0
        if "recording" in options:
            source_seed, index, alternatives = options["recording"]
            name, rng = None, np.random.default_rng([source_seed, index])
        if name in SUITE_TASKS:
            self.world, self.task, self.appearance = sample_suite_task(str(name), self.scene, rng)
        else:
            self.world, tasks = sample_tasks(self.scene, rng, 1 + alternatives, name)
            self.task, self.appearance = tasks[0], sample_appearance(rng)
        if self.mobile_base:
            add_base(self.world)
        self._current_task = str(name) if name in SUITE_TASKS else self.task.skill
        self._steps = self._clipped = self._early_terminations = self._base_steps = 0
        self._success_step: int | None = None
        return self._observation(), self._info(failed=False, correct_termination=False)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Advance one control step of 0.2 s.

        Raises:
            ValueError: the action has a wrong shape or is not finite.
        """
        action = np.asarray(action, np.float64)
        names = self.space.names
        if action.shape != (self.space.dim,):
            raise ValueError(
                f"action has shape {action.shape}, expected ({self.space.dim},): {', '.join(names)}"
            )
        if not np.isfinite(action).all():
            bad = [n for n, v in zip(names, action, strict=True) if not np.isfinite(v)]
            raise ValueError(f"action is not finite in {', '.join(bad)}")
        clipped = np.clip(action, self.space.low, self.space.high)
        self._clipped += int((np.abs(clipped - action) > 1e-6).any())
        command = to_command(self.layout, clipped)
        self._base_steps += int(command.base and self.mobile_base)
        done_before = self._success_step is not None
        self.world.step(command)
        self._steps += 1
        reward = 0.0
        if self._success_step is None and self.task.succeeded(self.world):
            self._success_step, reward = self._steps, 1.0
        failed = self._success_step is None and self.task.failed(self.world)
        correct_termination = command.terminate and done_before
        self._early_terminations += int(command.terminate and not done_before)
        timeout = (
            self._success_step is not None and self._steps >= self._success_step + TERMINATE_STEPS
        )
        terminated = failed or correct_termination or timeout
        truncated = not terminated and self._steps >= self.max_steps
        info = self._info(failed, correct_termination)
        return self._observation(), reward, terminated, truncated, info

    def render(self) -> np.ndarray:
        """The image of the top camera: (size, size, 3) uint8."""
        return render_top(self.world.items, self.world.gripper, self.appearance, self.size)

    def _observation(self) -> dict[str, Any]:
        items, gripper = self.world.items, self.world.gripper
        return {
            "images": {
                c: CAMERAS[c](items, gripper, self.appearance, self.size) for c in self.cameras
            },
            "state": gripper_state(gripper),
            "instruction": self.task.instruction,
        }

    def _info(self, failed: bool, correct_termination: bool) -> dict[str, Any]:
        return {
            "success": self._success_step is not None,
            "failed": failed,
            "correct_termination": correct_termination,
            "early_terminations": self._early_terminations,
            "clipped": self._clipped,
            "base_steps": self._base_steps,
            "task": self._current_task,
        }


def gripper_state(g: Gripper) -> np.ndarray:
    """The measured state (7,) float32: x, y, z (m), roll, pitch, yaw (rad), aperture (1 open).

    With a mobile base (10,): the base's x, y (m) and yaw (rad) follow.
    """
    base = [] if g.base is None else [g.base.x, g.base.y, g.base.yaw]
    return np.array([g.x, g.y, g.z, g.roll, g.pitch, g.yaw, g.aperture, *base], np.float32)


def add_base(world: World) -> None:
    """Put a mobile base under the gripper."""
    world.gripper.base = Base(world.gripper.x, world.gripper.y, world.gripper.yaw)
