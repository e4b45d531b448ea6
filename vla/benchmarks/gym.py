"""Any gymnasium environment as a benchmark."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from vla.benchmarks.base import Benchmark, Expert, Task
from vla.benchmarks.gym_actions import VectorActions
from vla.benchmarks.gym_make import make_environment, new_expert
from vla.benchmarks.gym_outcome import OutcomeEnvironment, Success, Timing, parse_scores
from vla.benchmarks.image_env import ImageEnvironment, Pixels, shows_images
from vla.config import register
from vla.errors import ConfigError

MAX_STEPS = 1000  # of an episode, if the environment has no limit
RATE_HZ = 5.0  # control rate, if the environment names none


@dataclass(frozen=True)
class GymTask:
    """One task: how it differs from the other tasks of the environment."""

    id: str | None = None  # gymnasium id; null: the benchmark's
    instruction: str = ""  # empty: the benchmark's
    group: str = ""  # tasks with a common average, e.g. "easy"
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of gymnasium.make
    reset: dict[str, Any] = field(default_factory=dict)  # options of ``reset``


@register("benchmark", "gym")
class GymBenchmark(Benchmark):
    """A gymnasium environment by its id, with one task or with those of ``tasks``.

    Actions are unnamed numbers; a choice is a whole number, see ``VectorActions``.

    Raises:
        ConfigError: an unknown id or camera, an environment that cannot be made, or one whose
            actions are no numbers and choices.
    """

    name = "gym"

    def __init__(
        self,
        id: str,  # gymnasium id, e.g. "CartPole-v1"; "module:id" imports the module first
        instruction: str = "",  # instruction of the tasks, if the environment gives none
        # Field of the observation or of info with the instruction; null: instruction,
        # language_instruction, mission or task_description.
        instruction_key: str | None = None,
        # Camera of the policy -> name of the image in the observation, where the two differ.
        # Without a policy (recording): the cameras that are recorded; null: every image.
        cameras: dict[str, str] | None = None,
        # Fields of the observation that form the state, in order; null: "state", "agent_pos",
        # "proprio" or "observation", or an observation that is one vector; []: no state.
        state: list[str] | None = None,
        # Where images come from. auto: render() if the observation has none.
        pixels: Pixels = "auto",
        # Further arguments of ``gymnasium.make``, e.g. render_mode and max_episode_steps.
        options: dict[str, Any] | None = None,
        # Wrappers by import path, the innermost first: "module:Class", or {wrapper:
        # "module:Class", argument: value}.
        wrappers: list[Any] | None = None,
        # Name -> what sets it apart: instruction, group, id, options (of make), reset (options of
        # reset). null: one task with the id as its name.
        tasks: dict[str, GymTask] | None = None,
        # Success: the entry of info that says it. All given ones of this and the next two options
        # have to be true; none: info's success or is_success, else gymnasium's reward threshold.
        success: str | None = None,
        success_reward: float | None = None,  # smallest reward of the step; null: any
        success_return: float | None = None,  # smallest sum of the episode's rewards; null: any
        # last: the last step of an episode decides; any: the first successful step ends it.
        success_at: Timing = "last",
        # Column of the results -> "WAY VALUE": last, max, min, sum or mean over the steps of an
        # episode, of reward or of an entry of info; null: {return: sum reward}.
        scores: dict[str, str] | None = None,
        rate_hz: float | None = None,  # actions per second; null: the environment's render_fps
        # Bound numbers in actions as the environment's action space says. false where that space is
        # too narrow, e.g. gym-aloha's, whose joint angles exceed its -1 to 1.
        clip_actions: bool = True,
        # "module:name" of an expert, (environment, observation) -> the environment's own action, or
        # of a class or function without arguments that gives one for each episode. null: none.
        expert: str | None = None,
        *,
        policy_cameras: tuple[str, ...] = (),
    ) -> None:
        self.id, self.cameras, self.names = id, policy_cameras, dict(cameras or {})
        self.state, self.instruction_key, self.pixels = state, instruction_key, pixels
        self.options, self.wrappers = dict(options or {}), list(wrappers or [])
        self.success = Success(success, success_reward, success_return, success_at)
        self.scores = parse_scores({"return": "sum reward"} if scores is None else scores)
        self.metrics = tuple(self.scores)
        if rate_hz is not None and not 0 < rate_hz < math.inf:
            raise ConfigError(f"benchmark.rate_hz: expected a number above 0, got {rate_hz:g}")
        self.rate_hz, self.expert_path, self.clip_actions = rate_hz, expert, clip_actions
        for name in self.names:
            if policy_cameras and name not in policy_cameras:
                raise ConfigError(
                    f"benchmark.cameras.{name}: the policy has no such camera; "
                    f"choices: {', '.join(policy_cameras)}"
                )
        given = tasks or {id: GymTask()}
        self._tasks = [Task(n, t.instruction or instruction, t.group) for n, t in given.items()]
        self._variants = dict(given)
        _check_names(self._tasks)
        self._renders: dict[str, bool] = {}  # task -> its images come from ``render()``
        with closing(self._make(self._tasks[0])) as env:
            self._vector = self._actions(env)
        self.action_space = self._vector.space

    @functools.cached_property
    def max_steps(self) -> int:  # type: ignore[override]
        """The largest limit of all tasks; makes an environment of each."""
        return max(self._steps(task) for task in self._tasks)

    def _steps(self, task: Task) -> int:
        with closing(self._make(task)) as env:
            return _limit(env) or MAX_STEPS

    def _make(self, task: Task) -> gym.Env[Any, Any]:
        """The environment of a task, with ``render()`` if it needs that, and with a limit."""
        variant = self._variants[task.id]
        id, options = variant.id or self.id, self.options | variant.options
        if self._renders.get(task.id):
            options = {"render_mode": "rgb_array"} | options
        env = make_environment(id, options, self.wrappers)
        if task.id not in self._renders:
            space = getattr(env, "observation_space", None)
            observed = self.pixels != "render" and shows_images(space)
            known = "rgb_array" in env.metadata.get("render_modes", ())
            self._renders[task.id] = known and not observed
            if self._renders[task.id]:
                env.close()
                return self._make(task)
        return env if _limit(env) else gym.wrappers.TimeLimit(env, MAX_STEPS)

    def _actions(self, env: gym.Env[Any, Any]) -> VectorActions:
        rate = float(self.rate_hz or env.metadata.get("render_fps") or RATE_HZ)
        try:
            return VectorActions(env.action_space, rate, self.clip_actions)
        except ValueError as error:
            raise ConfigError(f"benchmark.id={self.id!r}: {error}") from error

    def tasks(self) -> list[Task]:
        """The tasks of the options; by default one with the environment's id."""
        return self._tasks

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        """The environment with the observations of ``Benchmark``.

        Raises:
            ConfigError: its actions are not those of the first task.
        """
        env = self._make(task)
        actions = self._actions(env)
        if actions.space != self.action_space:
            raise ConfigError(
                f"benchmark.tasks.{task.id}: its actions are {env.action_space}, those of "
                f"{self._tasks[0].id!r} are others; evaluate the two separately"
            )
        return ImageEnvironment(
            OutcomeEnvironment(env, self.success, self.scores),
            self.cameras,
            task.instruction,
            self.names,
            self.state,
            self.pixels,
            self.instruction_key,
            actions,
            self._variants[task.id].reset,
        )

    def expert(self, task: Task) -> Expert | None:
        """The expert of the option ``expert``."""
        if self.expert_path is None:
            return None
        act = new_expert(self.expert_path)

        def vector(env: gym.Env[Any, Any], observation: dict[str, Any]) -> Any:
            return self._vector.encode(act(env, observation))

        return vector


def _limit(env: gym.Env[Any, Any]) -> int | None:
    """The largest number of steps of an episode; an outer wrapper may hide that of an inner one."""
    limit = getattr(env.spec, "max_episode_steps", None) or 0
    if limit > 0:  # -1 stands for no limit in ``gymnasium.make``
        return int(limit)
    return _limit(env.env) if isinstance(env, gym.Wrapper) else None


def _check_names(tasks: Sequence[Task]) -> None:
    """Refuse names that mean two things in ``--task``, ``--group`` and the results."""
    names, groups = [t.id for t in tasks], {t.group for t in tasks}
    for name in ("all", *groups):
        if name in names or (name == "all" and name in groups):
            kind = "the group of all tasks" if name == "all" else "a group"
            raise ConfigError(f"benchmark.tasks.{name}: {kind} has this name; choose another")
