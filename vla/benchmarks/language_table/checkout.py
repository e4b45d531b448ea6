"""Imports the simulator from the user's checkout of google-research/language-table."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from vla.benchmarks.gym_make import require
from vla.errors import ConfigError

VARIABLE = "LANGUAGE_TABLE"  # environment variable with the folder of the checkout
_URL = "https://github.com/google-research/language-table"
_MARK = Path("language_table") / "environments" / "language_table.py"
_PACKAGES = {"pybullet": "pybullet", "absl": "absl-py"}  # module -> package of the extra
_ORACLE = "oracles.push_oracle_rrt_slowdown:ObstacleOrientedPushOracleBoard2dRRT"


@dataclass(frozen=True)
class Simulator:
    """Classes of the checkout."""

    environment: Any  # ``LanguageTable``
    blocks: Any  # ``LanguageTableBlockVariants``
    oracle: Any  # ``ObstacleOrientedPushOracleBoard2dRRT``
    rewards: dict[str, Any]  # import path "module:class" below ``rewards`` -> class


def find_checkout(option: str) -> Path:
    """The folder of the checkout: the option, or else the environment variable.

    Raises:
        ConfigError: neither is set, or the folder is no checkout.
    """
    given = option or os.environ.get(VARIABLE, "")
    clone = f"git clone {_URL}"
    if not given:
        raise ConfigError(
            f"benchmark.checkout: Language-Table needs its own repository: {clone}, then set "
            f"{VARIABLE}=FOLDER in the environment, or checkout=FOLDER"
        )
    folder = Path(given).expanduser().resolve()
    if not (folder / _MARK).is_file():
        source = "benchmark.checkout" if option else f"{VARIABLE} in the environment"
        raise ConfigError(
            f"{source}: {folder} has no {_MARK}; expected the folder that `{clone}` makes"
        )
    return folder


@functools.cache
def load_simulator(folder: Path, rewards: tuple[str, ...]) -> Simulator:
    """The classes of a checkout.

    Args:
        rewards: import paths "module:class" below ``language_table.environments.rewards``.

    Raises:
        ConfigError: a package is missing, or the checkout has other modules than expected.
    """
    for module in _PACKAGES:
        require(module, "language-table")
    root = "language_table.environments"
    with quiet(1, 2):
        import pybullet  # noqa: F401  # prints its build time
    try:
        with _stand_ins(folder):
            return Simulator(
                _imported(f"{root}.language_table:LanguageTable"),
                _imported(f"{root}.blocks:LanguageTableBlockVariants"),
                _imported(f"{root}.{_ORACLE}"),
                {path: _imported(f"{root}.rewards.{path}") for path in rewards},
            )
    except Exception as error:  # modules of another version may raise any exception
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(
            f"{folder}: cannot import the simulator ({reason}); update the checkout with git pull"
        ) from error


def revision(folder: Path) -> str:
    """The commit of the checkout; "unknown" without git."""
    command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


@contextlib.contextmanager
def quiet(*descriptors: int) -> Iterator[None]:
    """Drops what pybullet's C code prints to these file descriptors (1: output, 2: errors)."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in descriptors]
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    os.close(nothing)
    try:
        yield
    finally:
        for descriptor, copy in zip(descriptors, kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@contextlib.contextmanager
def _stand_ins(folder: Path) -> Iterator[None]:
    """Imports from ``folder`` without packages of which the simulator runs no code.

    Its modules import TensorFlow, TF-Agents, OpenCV, imageio and six, but the environment, the
    rewards and the oracle use them only for debugging images, files and base classes. gymnasium
    has the two names that are used of gym. Afterwards every module has its own meaning again.
    """
    modules = _modules()
    before = {name: sys.modules.get(name) for name in modules}
    for name in [n for n in sys.modules if n.split(".")[0] == "language_table"]:
        before[name] = sys.modules.pop(name)
    sys.modules.update(modules)
    sys.path.insert(0, str(folder))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(folder))
        for name in [n for n in sys.modules if n.split(".")[0] == "language_table"]:
            del sys.modules[name]
        for name in modules:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if module is not None})


def _modules() -> dict[str, ModuleType]:
    """Stand-ins by name."""

    class PyPolicy:
        """The base class of the oracle, of which it uses nothing."""

        def __init__(self, *specs: Any) -> None: ...

    names = ("cv2", "imageio", "six", "tensorflow", "tf_agents", "tf_agents.policies")
    agents = ("policies.py_policy", "trajectories", "trajectories.policy_step")
    every = [*names, *(f"tf_agents.{n}" for n in agents), "tf_agents.trajectories.time_step"]
    found = {name: ModuleType(name) for name in every}
    found["cv2"].FONT_HERSHEY_DUPLEX = 2  # type: ignore[attr-defined]
    found["tf_agents.policies.py_policy"].PyPolicy = PyPolicy  # type: ignore[attr-defined]
    return found | {"gym": gymnasium, "gym.spaces": gymnasium.spaces}
