"""gym-aloha's cube transfer: a scripted expert, and a wrapper that renders only what is used."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

TIP = 0.12  # from a gripper link to the middle between its fingertips, m
DOWN = np.deg2rad(60.0)  # pitch of the hand that picks the cube
OPEN, CLOSED = 1.0, 0.0
REST = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0])  # joints at the start of an episode, rad
MEET = np.array([0.0, 0.5, 0.25])  # where the hands meet, m
# Control steps (50 Hz) at which a waypoint is reached, per hand.
RIGHT = (40, 70, 90, 150, 300)
LEFT = (90, 150, 200, 220, 300)


class TopCamera(gym.Wrapper[Any, Any, Any, Any]):
    """The camera ``top`` at 160 x 120 px without shadows; the package renders three at 640 x 480.

    The observation is {"top": (120, 160, 3) uint8, "agent_pos": (14,) float}.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        physics, task = env.unwrapped._env.physics, env.unwrapped._env.task
        physics.model.ptr.light_castshadow[:] = 0
        task.get_observation = lambda physics: {
            "qpos": task.get_qpos(physics),
            "images": {"top": physics.render(height=120, width=160, camera_id="top")},
        }
        self.observation_space = gym.spaces.Dict(
            {
                "top": gym.spaces.Box(0, 255, (120, 160, 3), np.uint8),
                "agent_pos": gym.spaces.Box(-np.inf, np.inf, (14,), np.float64),
            }
        )

    def reset(self, **options: Any) -> Any:
        """As in gymnasium."""
        observation, info = self.env.reset(**options)
        return self._flat(observation), info

    def step(self, action: Any) -> Any:
        """As in gymnasium."""
        observation, *rest = self.env.step(action)
        return self._flat(observation), *rest

    @staticmethod
    def _flat(observation: Any) -> Any:
        return {"top": observation["pixels"]["top"], "agent_pos": observation["agent_pos"]}


class Expert:
    """One episode of ``gym_aloha/AlohaTransferCube-v0``. It reads the cube's position.

    The right hand picks the cube and carries it to the middle; the left hand, rolled by 90
    degrees, takes it. Joint angles between waypoints are interpolated.
    """

    def __init__(self) -> None:
        self.step = 0
        self.plans: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, env: Any, observation: Any) -> np.ndarray:
        """Targets (14,) of six joints (rad) and a gripper (0 to 1) for the left and right arm."""
        if not self.plans:
            self._plan(env.unwrapped._env.physics)
        self.step += 1
        targets = [
            np.interp(self.step, times, column)
            for times, points in (self.plans["left"], self.plans["right"])
            for column in points.T
        ]
        return np.array(targets, np.float32)

    def _plan(self, physics: Any) -> None:
        cube = np.array(physics.named.data.xpos["box"])
        arms = {side: _Arm(physics, side) for side in ("left", "right")}
        right, left = arms["right"], arms["left"]
        above = right.joints(cube + np.array([0, 0, 0.08]), DOWN, 0.0, REST)
        at = right.joints(cube, DOWN, 0.0, above)
        carried = right.joints(MEET, 0.0, 0.0, above)
        before = left.joints(MEET - np.array([0.12, 0, 0]), 0.0, np.pi / 2, REST)
        there = left.joints(MEET - np.array([0.005, 0, 0]), 0.0, np.pi / 2, before)
        self.plans["right"] = _path(
            RIGHT, [above, at, at, carried, carried], [OPEN, OPEN, CLOSED, CLOSED, CLOSED]
        )
        self.plans["left"] = _path(
            LEFT, [before, before, there, there, there], [OPEN, OPEN, OPEN, CLOSED, CLOSED]
        )


class _Arm:
    """Inverse kinematics of one arm by damped least squares."""

    def __init__(self, physics: Any, side: str) -> None:
        self.model, self.data = physics.model.ptr, mujoco.MjData(physics.model.ptr)
        self.data.qpos[:] = physics.data.qpos
        self.body = self.model.body(f"vx300s_{side}/gripper_link").id
        self.first = 0 if side == "left" else 8
        self.yaw = 0.0 if side == "left" else np.pi

    def joints(
        self, tip: np.ndarray, pitch: float, roll: float, start: np.ndarray, rounds: int = 200
    ) -> np.ndarray:
        """Angles (6,) that bring the fingertips to ``tip`` (m) with a pitch and roll (rad)."""
        goal, angles = _rotation(self.yaw, pitch, roll), start.copy()
        jacobian = np.zeros((6, self.model.nv))
        for _ in range(rounds):
            self.data.qpos[self.first : self.first + 6] = angles
            mujoco.mj_kinematics(self.model, self.data)
            mujoco.mj_comPos(self.model, self.data)
            now = self.data.xmat[self.body].reshape(3, 3)
            error = np.concatenate(
                [
                    tip - goal[:, 0] * TIP - self.data.xpos[self.body],
                    0.5 * sum(np.cross(now[:, k], goal[:, k]) for k in range(3)),
                ]
            )
            mujoco.mj_jacBody(self.model, self.data, jacobian[:3], jacobian[3:], self.body)
            own = jacobian[:, self.first : self.first + 6]
            change = own.T @ np.linalg.solve(own @ own.T + 1e-3 * np.eye(6), error)
            angles = angles + np.clip(change, -0.05, 0.05)  # small: the wrist must not flip
        return angles


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    matrix = np.zeros(9)
    quat = np.zeros(4)
    mujoco.mju_euler2Quat(quat, np.array([yaw, pitch, roll]), "ZYX".lower())
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def _path(
    times: tuple[int, ...], angles: list[np.ndarray], grippers: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Steps (W,) and targets (W, 7) of an arm's waypoints, after the start."""
    points = [np.append(REST, 0.1)]
    points += [np.append(a, g) for a, g in zip(angles, grippers, strict=True)]
    return np.array((0, *times)), np.array(points)
