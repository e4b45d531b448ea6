"""LIBERO's observations beside those of the package's own environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from libero.libero.envs import OffScreenRenderEnv

from vla.benchmarks.base import SEED, Check, Task
from vla.benchmarks.libero.env import CAMERAS, LiberoEnv, bddl_file

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (2, 7))


def observed(env: LiberoEnv) -> list[dict[str, np.ndarray]]:
    """Images and state after ``reset`` and after every one of some random actions."""
    settle, env.settle = env.settle, 0  # the package's environment draws an image at every step
    observation, _ = env.reset(seed=SEED)
    env.settle = settle
    found = [{**observation["images"], "state": observation["state"]}]
    for action in ACTIONS:
        observation = env.step(action)[0]
        found.append({**observation["images"], "state": observation["state"]})
    return found


def compared_with_package(
    env: LiberoEnv, task: Task, ours: list[dict[str, np.ndarray]]
) -> Iterator[Check]:
    """Checks of ``observed`` against the package's own environment.

    Both start without settle steps. Its images are converted as published evaluations do it.
    ``env`` may be closed: two open contexts of OpenGL are not mixed.
    """
    theirs: Any = OffScreenRenderEnv(
        bddl_file_name=str(bddl_file(task.group, task.id)),
        camera_heights=env.size,
        camera_widths=env.size,
    )
    number = SEED % len(env.states)
    theirs.seed(number)
    theirs.reset()
    observed = theirs.set_init_state(env.states[number])
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in CAMERAS}
    moved: list[float] = []
    _compare(observed, ours[0], images, moved)
    for action, mine in zip(ACTIONS, ours[1:], strict=True):
        _compare(theirs.step(action)[0], mine, images, moved)
    theirs.close()
    worst = {camera: max(np.max(v) for v in values) for camera, values in images.items()}
    mean = {camera: np.mean(values) for camera, values in images.items()}
    yield Check(
        "images of the package",
        "those of the package's own environment, image[::-1, ::-1]"
        + (", without shadows and reflections" if env.fast else ""),
        ", ".join(f"{c}: mean difference {mean[c]:.2f}, largest {worst[c]} of 255" for c in worst),
        max(mean.values()) <= 20 if env.fast else max(worst.values()) <= 2,
    )
    yield Check(
        "state of the package",
        "that of the package's own environment at every step",
        f"largest difference {max(moved):.1e} in {len(moved)} observations",
        max(moved) < 1e-4,
    )


def _compare(
    theirs: dict[str, np.ndarray],
    ours: dict[str, np.ndarray],
    images: dict[str, list[np.ndarray]],
    moved: list[float],
) -> None:
    for camera, name in CAMERAS.items():
        image = theirs[f"{name}_image"][::-1, ::-1].astype(int)
        images[camera].append(np.abs(image - ours[camera]))
    state = np.concatenate([theirs["robot0_eef_pos"], theirs["robot0_gripper_qpos"]])
    moved.append(float(np.abs(state - ours["state"][[0, 1, 2, 6, 7]]).max()))
