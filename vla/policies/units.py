"""Actions of a robot between the model's [-1, 1] and robot units."""

from __future__ import annotations

import numpy as np
import torch

from vla.data.relative import reference
from vla.models.actions.normalise import Mode, Normaliser, fixed_dims
from vla.policies.spec import RobotSpec
from vla.types import RobotBatch


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
    space, dims = spec.action_space, spec.relative
    if dims:
        if state_BTP is None or state_BTP.shape[-1] != spec.state_dim:
            raise ValueError(
                "this policy predicts actions relative to the measured state: "
                f"give state_BTP of shape (B, T, {spec.state_dim})"
            )
        current_BP = state_BTP[:, -1].cpu().numpy()
        actions_BHA = actions_BHA + np.stack([reference(s, dims) for s in current_BP])[:, None]
        fixed_A = fixed_dims(spec.statistics.get("actions"), space.dim)
        actions_BHA = np.where(np.isnan(fixed_A), actions_BHA, fixed_A)
    low, high = np.array(space.low, np.float32), np.array(space.high, np.float32)
    binary = np.array([name in space.binary for name in space.names])
    integer = np.array([name in space.integer for name in space.names])
    actions_BHA = np.where(integer, np.round(actions_BHA), actions_BHA)
    upper = binary & (actions_BHA > (low + high) / 2)
    return np.where(upper, high, np.where(binary, low, np.clip(actions_BHA, low, high)))
