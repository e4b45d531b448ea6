"""A policy bound to one of its robots: the object that evaluation, replay and serving use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from vla.models.actions.normalise import Normaliser
from vla.policies.names import check_names
from vla.policies.spec import RobotSpec


@dataclass(frozen=True)
class BoundPolicy:
    """The methods of ``BasePolicy`` without the argument ``robot``."""

    policy: Any  # a BasePolicy, whose module imports this one
    robot: str

    @property
    def spec(self) -> RobotSpec:
        """Inputs, outputs and units of the robot."""
        return self.policy.specs[self.robot]

    @property
    def normaliser(self) -> Normaliser:
        """Action normaliser of the robot."""
        return self.policy.normaliser(self.robot)

    def uses_previous_plan(self) -> bool:
        """See ``BasePolicy.uses_previous_plan``."""
        return self.policy.uses_previous_plan(self.robot)

    def samples(self) -> bool:
        """See ``BasePolicy.samples``."""
        return self.policy.samples(self.robot)

    def uses_drafts(self) -> bool:
        """See ``BasePolicy.uses_drafts``."""
        return self.policy.uses_drafts(self.robot)

    def uses_known_actions(self) -> bool:
        """See ``BasePolicy.uses_known_actions``."""
        return self.policy.uses_known_actions(self.robot)

    @property
    def predict(self) -> Callable[..., tuple[np.ndarray, list[str]]]:
        """See ``BasePolicy.predict``; give all arguments after the instructions by name."""
        return partial(self.policy.predict, robot=self.robot)

    def act(self, images: Any, instruction: str | Sequence[str], state: Any = None) -> np.ndarray:
        """See ``BasePolicy.act``."""
        return self.policy.act(images, instruction, state, self.robot)


class RenamedCameras:
    """A bound policy whose cameras have the names of an environment; see ``BoundPolicy``.

    Args:
        bound: the policy, saved or exported.
        names: camera of the policy -> name in the environment, where the two differ.

    Raises:
        ConfigError: the policy has no such camera.
    """

    def __init__(self, bound: Any, names: Mapping[str, str]) -> None:
        check_names(names, bound.spec.cameras)
        self.bound = bound
        cameras = tuple(names.get(camera, camera) for camera in bound.spec.cameras)
        self.spec: RobotSpec = replace(bound.spec, cameras=cameras)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bound, name)


class ReplacedInstructions:
    """A bound policy that gets other instructions than the tasks'; see ``BoundPolicy``.

    Args:
        bound: the policy, saved or exported.
        texts: instruction of the environment -> instruction that the policy gets.
    """

    def __init__(self, bound: Any, texts: Mapping[str, str]) -> None:
        self.bound, self.texts = bound, texts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bound, name)

    def predict(
        self, images: Any, instructions: Sequence[str], *args: Any, **options: Any
    ) -> tuple[np.ndarray, list[str]]:
        """See ``BasePolicy.predict``."""
        replaced = [self.texts.get(text, text) for text in instructions]
        actions: tuple[np.ndarray, list[str]]
        actions = self.bound.predict(images, replaced, *args, **options)
        return actions
