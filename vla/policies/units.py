"""Actions of a robot between the model's [-1, 1] and robot units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from vla.data.relative import reference
from vla.errors import ActionError
from vla.models.actions.normalise import Mode, Normaliser, fixed_dims
from vla.models.heads.base import KnownActions
from vla.policies.bounds import within_bounds
from vla.policies.spec import RobotSpec
from vla.types import Leftover, RobotBatch

Actions = TypeVar("Actions", np.ndarray, torch.Tensor)


def make_normaliser(spec: RobotSpec, mode: Mode, dims: dict[str, Mode] | None) -> Normaliser:
    """The normaliser of a robot's actions, or of their differences to the state.

    Differences have no bounds of their own: mode ``bounds`` takes the smallest and largest
    difference of the training data.
    """
    if not spec.relative:
        return Normaliser(spec.action_space, spec.statistics.get("actions"), mode, dims)
    mode = "min_max" if mode == "bounds" else mode
    return Normaliser(spec.learned_space, spec.statistics["relative"], mode, dims, complete=False)


def normalized_targets(normaliser: Normaliser, part: RobotBatch) -> torch.Tensor:
    """The actions of a batch in [-1, 1] (K, H, A).

    Steps that ``mask_KH`` excludes repeat the last valid action. Heads that encode or attend to
    whole chunks (FAST, flow) then do not depend on the values of excluded steps.
    """
    last_K = part.mask_KH.sum(1).sub(1).clamp(min=0)
    step_H = torch.arange(part.mask_KH.shape[1], device=part.mask_KH.device)
    index_KH = torch.minimum(step_H, last_K[:, None])
    row_K1 = torch.arange(len(index_KH), device=index_KH.device)[:, None]
    return normaliser(part.actions_KHA[row_K1, index_KH])


def known_actions(
    policy: Any,
    robot: str,
    leftovers: Sequence[Leftover | None],
    state_BTP: torch.Tensor | None = None,
) -> KnownActions:
    """What is left of earlier chunks, in [-1, 1], as the first steps of new chunks.

    Args:
        policy: a ``BasePolicy``, whose module imports this one.
        robot: one of its robots.
        leftovers: one for each row; None: nothing is left.
        state_BTP: measured state in robot units at the first step of the new chunks; needed if
            the spec is relative.

    Raises:
        ValueError: as ``to_legal_actions``.
    """
    spec, normaliser = policy.specs[robot], policy.normaliser(robot)
    actions_BHA = np.zeros((len(leftovers), spec.horizon, spec.action_space.dim), np.float32)
    frozen, count = [0] * len(leftovers), [0] * len(leftovers)
    for row, left in enumerate(leftovers):
        if left is not None:
            count[row] = min(spec.horizon, len(left.actions_HA))
            frozen[row] = min(left.frozen, count[row])
            actions_BHA[row, : count[row]] = left.actions_HA[: count[row]]
    if spec.relative:
        actions_BHA = actions_BHA - _references(spec, state_BTP)
    normalized = normaliser(torch.from_numpy(actions_BHA).to(normaliser.centre_A.device))
    after = torch.arange(spec.horizon)[None] >= torch.tensor(count)[:, None]
    normalized[after.to(normalized.device)] = 0.0
    return KnownActions(normalized, frozen, count)


def _references(spec: RobotSpec, state_BTP: torch.Tensor | None) -> np.ndarray:
    """(B, 1, A) values that relative actions are differences to.

    Raises:
        ValueError: the state is missing or has another width.
    """
    if state_BTP is None or state_BTP.shape[-1] != spec.state_dim:
        raise ValueError(
            "this policy predicts actions relative to the measured state: "
            f"give state_BTP of shape (B, T, {spec.state_dim})"
        )
    current_BP = state_BTP[:, -1].cpu().numpy()
    return np.stack([reference(s, spec.relative) for s in current_BP])[:, None]


def finite(spec: RobotSpec, actions_BHA: Actions) -> Actions:
    """The actions; ActionError, which names the dimensions, if one is NaN or infinite."""
    bad_A = ~torch.as_tensor(actions_BHA).isfinite().flatten(0, -2).all(0)
    if bad_A.any():
        names_A = spec.action_space.names
        names = ", ".join(name for name, bad in zip(names_A, bad_A, strict=True) if bad)
        raise ActionError(
            f"the policy's actions are not finite ({names}) and are not executed; check the "
            "observation (sizes and units) and the weights"
        )
    return actions_BHA


def check_actions(spec: RobotSpec, actions_BHA: np.ndarray) -> None:
    """Raise ActionError unless actions (B, H, A) are finite and within the bounds of the robot."""
    finite(spec, actions_BHA)
    space = spec.action_space
    for k, (name, low, high) in enumerate(zip(space.names, space.low, space.high, strict=True)):
        smallest, largest = float(actions_BHA[..., k].min()), float(actions_BHA[..., k].max())
        slack = 1e-6 * max(1.0, *(abs(b) for b in (low, high) if math.isfinite(b)))  # float32
        if smallest < low - slack or largest > high + slack:
            raise ActionError(
                f"the policy's actions for {name} are {smallest:g} to {largest:g}, outside "
                f"{low:g} to {high:g} {space.units[k]}, and are not executed; check the policy"
            )


def to_legal_actions(
    spec: RobotSpec, actions_BHA: np.ndarray, state_BTP: torch.Tensor | None
) -> np.ndarray:
    """Absolute actions within the bounds; binary dimensions at one, and whole numbers rounded.

    A dimension that never moves in the training data has its recorded value.

    Args:
        spec: the robot.
        actions_BHA: actions in robot units; differences to the state if the spec is relative.
        state_BTP: measured state in robot units; needed if the spec is relative.

    Raises:
        ValueError: the spec is relative, and the state is missing or has another width.
    """
    space = spec.action_space
    if spec.relative:
        actions_BHA = actions_BHA + _references(spec, state_BTP)
        fixed_A = fixed_dims(spec.statistics.get("actions"), space.dim)
        actions_BHA = np.where(np.isnan(fixed_A), actions_BHA, fixed_A)
    limits = space.names, space.low, space.high, space.binary, space.integer
    return within_bounds(actions_BHA, *limits)
