"""One reward family of Language-Table as an environment of ``Benchmark``."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.random import mtrand

from vla.benchmarks.language_table.checkout import Simulator, quiet
from vla.benchmarks.lazy_images import LazyImages
from vla.data.locations import location_text
from vla.errors import EnvironmentFailed

RATE_HZ = 10.0
BOUND = 0.1  # m; of a movement in one step, as in the action space of the checkout
HEIGHT = 180  # px; of the published images, which are 320 px wide
# The board (m) in x, from the top of the image to its bottom, and y, from left to right.
_CORNER, _BOARD = np.array([0.15, -0.3048]), np.array([0.45, 0.6096])
_LAYOUTS = 100  # attempts at a layout for which the oracle has a plan


class LanguageTableEnv(gym.Env[dict[str, Any], np.ndarray]):
    """Observations ``{"images": {camera: (H, W, 3) uint8}, "state": (2,) float32, "instruction"}``.

    Images are rendered when they are read (``LazyImages``). The state is the measured position of
    the effector (m). Actions are (2,): its movement (m), within ``BOUND``. The first step with a
    reward ends an episode. ``info["plan"]`` names the block that has to move, its place and its
    goal on the board, as ``red moon 143 97 120 90`` (``location_text``).

    The seed of ``reset`` determines an episode of a family: the physics client is made anew each
    time, because its restored state depends on the episode before. As in the published evaluation,
    layouts for which the oracle finds no plan are drawn again.

    Args:
        reward: class of the checkout that draws the instruction and computes the reward.
        family: number of the reward family; families have other layouts for the same seed.
        camera: name of the image.
        height: of the image, px; the width is 16/9 of it.

    Raises:
        EnvironmentFailed: (by ``reset``) no layout has a plan.
    """

    def __init__(
        self,
        simulator: Simulator,
        reward: Any,
        family: int,
        camera: str,
        height: int,
        max_steps: int,
    ) -> None:
        self.classes, self.reward, self.family, self.camera = simulator, reward, family, camera
        self.size, self.max_steps, self.steps = (height, round(height * 16 / 9)), max_steps, 0
        self.simulator: Any = None
        self.oracle: Any = None  # of the present episode; it has planned already
        self.instruction = ""
        self._images = LazyImages({})
        self._numpy_state: Any = None  # of NumPy's global generator, within the simulator
        bounds = np.full(2, BOUND, np.float32)
        self.action_space = gym.spaces.Box(-bounds, bounds)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in gymnasium."""
        super().reset(seed=seed)
        self._images.expire()
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        drawn = int(np.random.SeedSequence([number, self.family]).generate_state(1)[0])
        self._numpy_state = np.random.MT19937(drawn)
        self.simulator = self.oracle = None  # disconnects the client
        with self._own_random_numbers(), quiet(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gymnasium on the bounds of the observations
            self.simulator = self._simulator(drawn)
            self.simulator.seed(drawn)
            self._draw_layout(number)
        self.instruction, self.steps = str(self.simulator._instruction_str), 0
        return self._observe(), {"plan": self._plan()}

    def _simulator(self, seed: int) -> Any:
        simulator = self.classes.environment(
            block_mode=self.classes.blocks.BLOCK_8,
            reward_factory=self.reward,
            control_frequency=RATE_HZ,
            seed=seed,  # it also resets itself
        )
        empty = np.zeros((1, 1, 3), np.uint8)
        simulator._render_camera = lambda *args, **options: empty  # otherwise at every step
        scale = self.size[0] / HEIGHT
        focal = simulator._camera_instrinsics  # so spelled in the checkout
        simulator._camera_instrinsics = tuple(v * scale if v != 1 else v for v in focal)
        return simulator

    def _draw_layout(self, seed: int) -> None:
        for _ in range(_LAYOUTS):
            with contextlib.suppress(ValueError):  # no place for a block, or no valid instruction
                self.simulator.reset()
                self.oracle = self.classes.oracle(_OracleView(self.simulator), use_ee_planner=True)
                if self.oracle.get_plan(self.simulator.compute_state()):
                    return
        raise EnvironmentFailed(f"language_table, seed {seed}: no plan for {_LAYOUTS} layouts")

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """As in gymnasium; ``info["success"]`` is True at the first step with a reward."""
        self._images.expire()
        with self._own_random_numbers():
            moved = np.clip(np.asarray(action, np.float64), -BOUND, BOUND)
            _, reward, done, _ = self.simulator.step(moved)
        self.steps += 1
        info = {"success": bool(reward > 0), "plan": self._plan()}
        truncated = self.steps >= self.max_steps
        return self._observe(), float(reward), bool(done), truncated, info

    def expert_action(self) -> np.ndarray:
        """The oracle's action (2,) in the present state."""
        with self._own_random_numbers():
            state = self.simulator.compute_state()
            action = self.oracle._get_action_for_block_target(state)
        return np.clip(np.asarray(action, np.float32), -BOUND, BOUND)

    def _plan(self) -> str:
        with self._own_random_numbers():
            state = self.simulator.compute_state()
        effector = state["effector_target_translation"]
        places = (
            _location(np.asarray(state[f"effector_target_to_{name}_translation"]) + effector)
            for name in ("start_block", "task_target")
        )
        block = self.simulator._start_block.replace("_", " ")
        return " ".join([block, *places])

    def draw_blocks(self) -> dict[str, str]:
        """Place robot and blocks anew, without a task for the oracle.

        Returns:
            Name of a block -> its place as ``location_text``, for instance ``143 97``.

        Raises:
            EnvironmentFailed: no place was found for the blocks.
        """
        self._images.expire()
        with self._own_random_numbers():
            for _ in range(_LAYOUTS):
                with contextlib.suppress(ValueError):
                    self.simulator.reset()
                    state = self.simulator.compute_state()
                    break
            else:
                raise EnvironmentFailed(f"language_table: no layout in {_LAYOUTS} attempts")
        names = [key.removesuffix("_mask") for key in state if key.endswith("_mask")]
        present = [name for name in names if state[f"{name}_mask"].item()]
        return {
            name.removeprefix("block_").replace("_", " "): _location(state[f"{name}_translation"])
            for name in present
        }

    def _observe(self) -> dict[str, Any]:
        self._images = LazyImages({self.camera: self.render})
        measured = self.simulator._robot.forward_kinematics().translation[:2]
        state = np.asarray(measured, np.float32)
        return {"images": self._images, "state": state, "instruction": self.instruction}

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The image (H, W, 3) uint8 of the present state."""
        image: np.ndarray = self.classes.environment._render_camera(self.simulator, self.size)
        return image

    @contextlib.contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """NumPy's global generator is this episode's: the checkout draws from it."""
        before = mtrand.get_bit_generator()
        mtrand.set_bit_generator(self._numpy_state)
        try:
            yield
        finally:
            mtrand.set_bit_generator(before)

    def close(self) -> None:
        """Disconnect the physics client."""
        self._images.expire()
        self.simulator = self.oracle = None


def _location(place: np.ndarray) -> str:
    """A point (m) on the board as text."""
    x, y = (place - _CORNER) / _BOARD
    return location_text(y, 1 - x)


class _OracleView:
    """What the oracle calls of its environment, TF-Agents' wrapper of ``LanguageTable``."""

    def __init__(self, simulator: Any) -> None:
        self.compute_state, self.pybullet_client = (
            simulator.compute_state,
            simulator.pybullet_client,
        )

    def time_step_spec(self) -> None:
        """For TF-Agents only."""

    def action_spec(self) -> None:
        """For TF-Agents only."""

    def get_control_frequency(self) -> float:
        """Actions per second."""
        return RATE_HZ
