"""Bound policies without a network, for tests of what runs a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vla.policies.spec import RobotSpec
from vla.types import ActionSpace

ACTIONS = ActionSpace(
    ("x", "y", "grip"), ("m", "m", ""), (-1.0, -1.0, 0.0), (1.0, 1.0, 1.0), binary=("grip",)
)


EIGHT = ActionSpace(tuple("abcdefgh"), ("",) * 8, (-1000.0,) * 8, (1000.0,) * 8)


@dataclass
class Call:
    """Arguments of one ``predict``."""

    images: torch.Tensor
    instructions: list[str]
    state: torch.Tensor | None
    previous_plans: list[str]


class RecordingPolicy:
    """Records the arguments of every call.

    Step h of the chunk of call n (from 1) has the value 0.1 n + 0.01 h in every dimension. With
    ``plans`` the plan of every row of call n is "n".
    """

    robot = "robot"

    def __init__(self, space: ActionSpace = ACTIONS, plans: bool = False, **spec: Any) -> None:
        arguments = {"cameras": ("top",), "image_size": (8, 8)} | spec
        self.spec = RobotSpec(space, **arguments)
        self.plans = plans
        self.calls: list[Call] = []

    def uses_previous_plan(self) -> bool:
        return self.plans

    def samples(self) -> bool:
        return False

    def uses_drafts(self) -> bool:
        return False

    def predict(
        self,
        images: torch.Tensor,
        instructions: Sequence[str],
        state_BTP: torch.Tensor | None = None,
        previous_plans: Sequence[str] = (),
    ) -> tuple[np.ndarray, list[str]]:
        self.calls.append(Call(images, list(instructions), state_BTP, list(previous_plans)))
        n, rows = len(self.calls), len(instructions)
        step = 0.1 * n + 0.01 * np.arange(self.spec.horizon, dtype=np.float32)
        shape = (rows, self.spec.horizon, self.spec.action_space.dim)
        chunks = np.broadcast_to(step[None, :, None], shape).astype(np.float32)
        return chunks, [str(n) if self.plans else ""] * rows


def observation(
    value: int = 0, instruction: str = "go", cameras: Sequence[str] = ("top",), **state: Any
) -> dict[str, Any]:
    """An observation whose 8 x 8 images all have the grey ``value``."""
    images = {camera: np.full((8, 8, 3), value, np.uint8) for camera in cameras}
    return {"images": images, "instruction": instruction, **state}


class SummingPolicy:
    """A policy for 8 x 8 images whose actions are sums over its inputs.

    Dimension 0: mean brightness of the first camera; 1: brightness of the oldest frame; 2: length
    of the instruction; 3: sum of the states; 4: the previous plan as a number (plans count calls).
    """

    robot = "arm"

    def __init__(
        self,
        cameras: tuple[str, ...] = ("top",),
        history: int = 1,
        horizon: int = 1,
        state_dim: int = 0,
        plans: bool = False,
    ) -> None:
        sizes = {"history": history, "horizon": horizon, "state_dim": state_dim}
        self.spec = RobotSpec(EIGHT, cameras, (8, 8), **sizes)
        self.plans = plans

    def uses_previous_plan(self) -> bool:
        return self.plans

    def samples(self) -> bool:
        return False

    def uses_drafts(self) -> bool:
        return False

    def predict(
        self, images: Any, instructions: Any, state_BTP: Any = None, previous_plans: Any = ("",)
    ) -> tuple[np.ndarray, list[str]]:
        assert images.shape[1:] == (len(self.spec.cameras), self.spec.history, 3, 8, 8)
        rows = len(instructions)
        counts = [int(plan or 0) for plan in [*previous_plans][:rows]] + [0] * rows
        out = np.zeros((rows, self.spec.horizon, 8), np.float32)
        for row, text in enumerate(instructions):
            out[row, :, 0] = images[row].float().mean((1, 2, 3, 4))[0]
            out[row, :, 1] = images[row, 0, 0].float().mean()
            out[row, :, 2] = len(text)
            out[row, :, 3] = 0 if state_BTP is None else float(state_BTP[row].sum())
            out[row, :, 4] = counts[row]
        return out, [str(count + 1) for count in counts[:rows]]
