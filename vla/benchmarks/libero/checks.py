"""LIBERO's conventions, measured in the simulator."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vla.benchmarks.base import SEED, Benchmark, Check, Task
from vla.benchmarks.libero.env import CAMERAS, LiberoEnv
from vla.benchmarks.libero.observations import compared_with_package, observed
from vla.benchmarks.libero.pixels import changed, nearest_way, projected

with contextlib.redirect_stdout(io.StringIO()):  # it prints the order of tasks
    from libero.libero.benchmark import get_benchmark

_SETTLE, _RATE = 10, 20.0  # steps and Hz, published
_AXES = "xyz"


def libero_checks(benchmark: Benchmark, task: Task) -> Iterator[Check]:
    """Checks of one task; ``vla bench-check`` prints them.

    Args:
        benchmark: one of LIBERO's suites.
    """
    yield _tasks(benchmark, task)
    made: Any = benchmark.make_env(task)
    with closing(made) as env:
        yield _initial_state(env)
        yield from _settle(env)
        yield from _movements(env)
        yield from _rotations(env)
        yield _gripper(env)
        yield _state(env)
        yield _orientation(env)
        ours = observed(env)
    yield from compared_with_package(env, task, ours)


def _tasks(benchmark: Benchmark, task: Task) -> Check:
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = get_benchmark(f"libero_{task.group}")().tasks
    ours = [t for t in benchmark.tasks() if t.group == task.group]
    same = [(t.name, t.language) for t in theirs] == [(t.id, t.instruction) for t in ours]
    return Check(
        "tasks",
        "names, order and instructions of the package",
        f"{len(ours)} tasks, {'the same' if same else 'others'}",
        same,
    )


def _body(env: LiberoEnv) -> np.ndarray:
    """Time, positions and velocities of the simulator, as an initial state has them."""
    state: np.ndarray = env.simulator.get_sim_state()
    return state


def _reset_at_once(env: LiberoEnv, seed: int = SEED) -> dict[str, Any]:
    """The observation after ``reset`` without settle steps."""
    settle, env.settle = env.settle, 0
    observation = env.reset(seed=seed)[0]
    env.settle = settle
    return observation


def _initial_state(env: LiberoEnv) -> Check:
    count, official, found = len(env.states), env.official is not None, []
    for seed in (SEED, SEED + count, SEED + 1):
        _reset_at_once(env, seed)
        found.append(np.abs(_body(env) - env.states[seed % count]).max())
    return Check(
        "initial state",
        f"seed k starts from official state k modulo {count}",
        f"difference {max(found):.1e} for seeds {SEED}, {SEED + count}, {SEED + 1}",
        official and count == 50 and max(found) < 1e-6,
    )


def _settle(env: LiberoEnv) -> Iterator[Check]:
    env.reset(seed=SEED)
    begin = env.states[SEED % len(env.states)][0]
    steps = (_body(env)[0] - begin) * _RATE
    yield Check(
        "settle steps",
        f"{_SETTLE} steps without movement before the first observation",
        f"{steps:.2f} steps of simulated time",
        abs(steps - _SETTLE) < 0.1,
    )
    before = _body(env)[0]
    env.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))
    rate = 1 / (_body(env)[0] - before)
    yield Check("control rate", f"{_RATE:g} Hz", f"{rate:.2f} Hz", abs(rate - _RATE) < 0.1)


def _pose(env: LiberoEnv) -> tuple[np.ndarray, Rotation]:
    scene = env.scene()
    return scene.hand, Rotation.from_matrix(scene.axes)


def _moved(env: LiberoEnv, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Movement (m) and rotation vector (rad) after 5 steps with 0.5 in one action dimension."""
    _reset_at_once(env)
    action = np.array([0, 0, 0, 0, 0, 0, -1.0])
    before, start = _pose(env)
    for value in [0.5] * 5 + [0.0] * 3:
        action[dim] = value
        env.step(action)
    after, end = _pose(env)
    return after - before, (end * start.inv()).as_rotvec()


def _along(vector: np.ndarray, axis: int, least: float) -> bool:
    """True if a vector points along an axis, in its positive direction."""
    return bool(vector[axis] > least and vector[axis] > 0.8 * np.linalg.norm(vector))


def _movements(env: LiberoEnv) -> Iterator[Check]:
    for axis, name in enumerate(_AXES):
        move, _ = _moved(env, axis)
        yield Check(
            f"action {name}",
            f"+ moves the hand along + {name} of the robot's frame",
            f"x y z {_numbers(1000 * move, 1)} mm after 5 steps of 0.5",
            _along(move, axis, 0.01),
        )


def _rotations(env: LiberoEnv) -> Iterator[Check]:
    for axis, name in enumerate(_AXES):
        _, turn = _moved(env, 3 + axis)
        yield Check(
            f"action r{name}",
            f"+ turns the hand about + {name} of the robot's frame (axis-angle)",
            f"axis-angle {_numbers(turn, 2)} rad after 5 steps of 0.5",
            _along(turn, axis, 0.1),
        )


def _gripper(env: LiberoEnv) -> Check:
    observation, _ = env.reset(seed=SEED)
    widths = [observation["state"][6] - observation["state"][7]]
    for sign in (1.0, -1.0):
        for _ in range(15):
            observation = env.step(np.array([0, 0, 0, 0, 0, 0, sign]))[0]
        widths.append(observation["state"][6] - observation["state"][7])
    return Check(
        "gripper",
        "+1 closes, -1 opens",
        f"opening {1000 * widths[0]:.0f} mm, {1000 * widths[1]:.0f} mm after +1, "
        f"{1000 * widths[2]:.0f} mm after -1",
        widths[1] < 0.01 and widths[2] > 0.06,
    )


def _state(env: LiberoEnv) -> Check:
    """The state is 3 + 3 + 2 numbers; after many steps its rotation vector exceeds pi."""
    observation, _ = env.reset(seed=SEED)
    still = np.array([0, 0, 0, 0, 0, 0, -1.0])
    for _ in range(5):
        observation = env.step(still)[0]
    state, sim = observation["state"], env.simulator.env.sim
    robot = env.simulator.env.robots[0]
    hand, _ = _pose(env)
    quaternion = sim.data.get_body_xquat(robot.robot_model.eef_name)  # w x y z
    real = Rotation.from_quat(quaternion, scalar_first=True)
    error = (Rotation.from_rotvec(state[3:6]) * real.inv()).magnitude()
    angle = 2 * np.arccos(np.clip(quaternion[0], -1, 1))  # without a jump at pi
    fingers = sim.data.qpos[robot._ref_gripper_joint_pos_indexes]
    far = max(np.abs(state[:3] - hand).max(), np.abs(state[6:] - fingers).max())
    return Check(
        "state",
        "hand position, axis-angle of up to 2 pi, positions of both fingers",
        f"{len(state)} numbers; position within {1000 * far:.1f} mm, rotation within "
        f"{error:.3f} rad, angle {np.linalg.norm(state[3:6]):.3f} of {angle:.3f}",
        len(state) == 8
        and far < 0.002
        and error < 0.02
        and abs(np.linalg.norm(state[3:6]) - angle) < 0.02,
    )


def _orientation(env: LiberoEnv) -> Check:
    """Which way up the image is: an object is taken out of it, and found where it disappears."""
    env.reset(seed=SEED)
    camera = env.simulator.env.sim.model._model.camera(CAMERAS["agentview"])
    before = env.image("agentview").astype(int)
    best: tuple[float, str, str] = (-1.0, "", "no object is seen")
    for name in env.simulator.env.objects_dict:
        drawn = np.concatenate([env.shapes(name, group) for group in (0, 1)])
        place = env.drawn.geom_xpos[drawn].copy()
        pixel = projected(place.mean(0), env.drawn, camera, env.size)
        env.drawn.geom_xpos[drawn] += [0, 0, 50]
        seen = changed(before, env.image("agentview"))
        env.drawn.geom_xpos[drawn] = place
        if seen is None:
            continue
        way, distance = nearest_way(pixel, seen, env.size)
        off = float(np.abs(pixel - (env.size - 1) / 2).min())
        if off > best[0]:  # the farther from both middle lines, the clearer
            at = f"{name} at column, row {_numbers(seen, 0)}"
            best = off, way, f"{at}: {way}, {distance:.0f} px from there"
    return Check(
        "image flip",
        "rotated by 180 degrees from the simulator's image: upright and mirrored",
        best[2],
        best[1] == "mirrored",
    )


def _numbers(values: np.ndarray, digits: int) -> str:
    return " ".join(f"{value:.{digits}f}" for value in values)
