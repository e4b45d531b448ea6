"""One training step without numbers: its FLOPs, and its memory over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import _engine_run_backward as run_backward

from vla.training.planning.gpu_rules import GpuRules
from vla.training.planning.shapes import ShapesOnly
from vla.training.planning.specimen import Specimen
from vla.utils.device import autocast

_ROWS = (2, 4)  # rows of the two computed steps


@dataclass
class Timeline:
    """Bytes during one training step, at T moments.

    fixed_T, per_row_T: activations and temporary tensors are ``fixed_T + rows * per_row_T``.
    gradients_T: gradients that exist.
    """

    fixed_T: np.ndarray
    per_row_T: np.ndarray
    gradients_T: np.ndarray

    def peak(self, rows: float, gradients: float | None = None) -> float:
        """The largest sum of activations and gradients.

        ``gradients``: bytes of gradients all the time; None: those of this step as they appear.
        """
        held = self.gradients_T if gradients is None else gradients
        return float((self.fixed_T + rows * self.per_row_T + held).max())

    def rows_within(self, room: float, gradients: float | None = None) -> int:
        """The most rows whose peak is at most ``room``; 0: not even one."""
        held = self.gradients_T if gradients is None else gradients
        left = room - self.fixed_T - held
        if left.min() < 0:
            return 0
        grows = self.per_row_T > 0
        return int((left[grows] / self.per_row_T[grows]).min())


@dataclass
class Step:
    """A training step.

    flops: of the forward and backward pass of one image row.
    trained: bytes of the weights that get gradients.
    """

    flops: float
    trained: int
    timeline: Timeline


def measure_step(specimen: Specimen, mode: ShapesOnly, precision: str) -> Step:
    """The training step of any number of rows, from two steps of few rows."""
    few, many = (_run(specimen, mode, precision, rows) for rows in _ROWS)
    robots = len(specimen.policy.specs)  # each batch has rows of every robot
    difference = (_ROWS[1] - _ROWS[0]) * robots
    a, b = few.activations, many.activations
    if len(a) != len(b):  # the operations depend on the number of rows: only the peaks count
        a, b = [max(a)], [max(b)]
        few.gradients = [few.trained]
    low, high = np.array(a, np.float64), np.array(b, np.float64)
    per_row = np.maximum((high - low) / difference, 0.0)
    timeline = Timeline(low - _ROWS[0] * robots * per_row, per_row, np.array(few.gradients))
    return Step(many.flops / (_ROWS[1] * robots), few.trained, timeline)


@dataclass
class _Run:
    """Activations and gradients after each new tensor, in bytes."""

    activations: list[int]
    gradients: list[int]
    trained: int
    flops: int


def _run(specimen: Specimen, mode: ShapesOnly, precision: str, rows: int) -> _Run:
    policy = specimen.policy
    batch = specimen.batch(rows, mode)
    appeared: list[tuple[int, int]] = []  # moment, bytes

    def note(parameter: torch.Tensor) -> None:
        appeared.append((len(mode.timeline), parameter.numel() * parameter.element_size()))

    hooks = [
        p.register_post_accumulate_grad_hook(note) for p in policy.parameters() if p.requires_grad
    ]
    mode.start(policy)
    with mode, GpuRules():
        _backward(policy, batch, precision)
    for hook in hooks:
        hook.remove()
    policy.zero_grad(set_to_none=True)
    gradients = np.zeros(len(mode.timeline), np.int64)
    for moment, size in appeared:
        gradients[moment:] += size
    used = np.array(mode.timeline)
    return _Run(
        (used - gradients).tolist(),
        gradients.tolist(),
        sum(size for _, size in appeared),
        mode.flops,
    )


def _backward(policy: Any, batch: Any, precision: str) -> None:
    with autocast(precision, "cpu"):
        out = policy.losses(batch)
        loss = torch.cat([part.loss_M for part in out.robots]).mean()
    del out
    # The engine itself: within ``loss.backward()`` GpuRules would not be active.
    run_backward(
        (loss,),
        (torch.ones_like(loss),),
        False,
        False,
        (),
        allow_unreachable=True,
        accumulate_grad=True,
    )
