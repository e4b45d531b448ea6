"""A tiny tree of modules with the interface of google-research/language-table, written to disk.

A point moves to a goal that the episode draws; the images have one colour. As the original does,
the modules import packages that are not installed, and draw from NumPy's global generator.
"""

from __future__ import annotations

from pathlib import Path

ENVIRONMENT = """
import cv2, gym, six
import tensorflow as tf
from gym import spaces
import numpy as np
from types import SimpleNamespace
from language_table.environments import blocks

class LanguageTable(gym.Env):
    def __init__(self, block_mode, reward_factory, control_frequency, seed=None,
                 font=cv2.FONT_HERSHEY_DUPLEX):
        assert block_mode is blocks.LanguageTableBlockVariants.BLOCK_8 and control_frequency == 10.0
        self.reward, self._camera_instrinsics = reward_factory(), (256.96, 0, 160.0, 1)
        self._instruction_str, self._start_block = None, "red_moon"
        self.pybullet_client = SimpleNamespace(rendered=0)
        self.seed(seed)
        self.action_space = spaces.Box(low=-0.1, high=0.1, shape=(2,))
        # The state of the physics depends on earlier episodes.
        self.place = self._rng.uniform(0, 0.01, 2)
        self._robot = SimpleNamespace(
            forward_kinematics=lambda: SimpleNamespace(translation=[*self.place, 0.145])
        )

    def seed(self, seed=None):
        self._rng = np.random.RandomState(seed)

    def reset(self):
        if self._rng.uniform() < 0.3:
            raise ValueError("Exceeded max attempts for generating block pose.")
        self.place = self.place + self._rng.uniform(-0.1, 0.1, 2)
        self.goal = self._rng.uniform(-0.1, 0.1, 2)
        self._instruction_str = f"{np.random.choice(['push', 'slide'])} to {self.goal.round(3)}"

    def compute_state(self):
        start, goal = np.array([0.376, 0.001]), np.array([0.6, 0.3048])
        return {
            "to_goal": self.goal - self.place,
            "rgb": self._render_camera((180, 320)),
            "effector_target_translation": self.place,
            "effector_target_to_start_block_translation": start - self.place,
            "effector_target_to_task_target_translation": goal - self.place,
            "block_red_moon_translation": start + self.place,
            "block_red_moon_mask": np.array([1.0]),
            "block_blue_cube_mask": np.array([0.0]),  # not on the table
        }

    def step(self, action):
        assert np.abs(action).max() <= 0.1
        self.place = self.place + action
        reward = self.reward.value(self.compute_state()["to_goal"])
        return {}, reward, reward > 0, {}

    def _render_camera(self, size):
        self.pybullet_client.rendered += 1
        assert abs(self._camera_instrinsics[0] / 0.803 - size[1]) < 1
        return np.full((*size, 3), 90, np.uint8)
"""
ORACLE = """
import numpy as np
from tf_agents.policies import py_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

class ObstacleOrientedPushOracleBoard2dRRT(py_policy.PyPolicy):
    def __init__(self, env, use_ee_planner):
        super().__init__(env.time_step_spec(), env.action_spec())
        assert use_ee_planner and env.pybullet_client is not None
        self.step = 0.3 / env.get_control_frequency()

    def get_plan(self, state):
        return np.random.uniform() < 0.5

    def _get_action_for_block_target(self, state):
        wanted = state["to_goal"] + np.random.normal(0, 0.002, 2)
        return wanted * min(1, self.step / np.linalg.norm(wanted))
"""
REWARD = """
import numpy as np

class {name}:
    def value(self, to_goal):
        return 100.0 if np.linalg.norm(to_goal) < 0.02 else 0.0
"""
BLOCKS = """
import enum

class LanguageTableBlockVariants(enum.Enum):
    BLOCK_8 = "BLOCK_8"
"""


def write_checkout(folder: Path, rewards: dict[str, str]) -> Path:
    """The tree in ``folder``, with one reward module for each "module:class"; ``folder``."""
    root = folder / "language_table" / "environments"
    files = {
        "__init__.py": "",
        "language_table.py": ENVIRONMENT,
        "blocks.py": BLOCKS,
        "oracles/__init__.py": "",
        "oracles/push_oracle_rrt_slowdown.py": ORACLE,
        "rewards/__init__.py": "",
    }
    for path in rewards.values():
        module, _, name = path.partition(":")
        files[f"rewards/{module}.py"] = REWARD.replace("{name}", name)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (folder / "language_table" / "__init__.py").touch()
    return folder


def write_packages(folder: Path) -> Path:
    """Empty packages pybullet and absl with their metadata in ``folder``; ``folder``."""
    for name in ("pybullet", "absl"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").touch()
        (folder / f"{name}-0.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n"
        (folder / f"{name}-0.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")
    return folder
