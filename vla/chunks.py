"""What is remembered from one asking of a policy to the next: chunks of actions (carried out in a row, or averaged over all that speak of a step), and the plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla.schema import ActionSpace


@dataclass(frozen=True)
class LastPlan:
    """A plan and the instruction that it was for."""

    instruction: str = ""
    plan: str = ""

    def before(self, instruction: str) -> str:
        """What counts as the plan of the step before: none (an empty text) where something else was asked."""
        return self.plan if self.instruction == instruction else ""


class ChunkMemory:
    """Chunks (H, A) by environment slot.

    Args:
        execute: steps of a chunk that are used before a new one is wanted. ensemble: want one at every step, and average what all chunks say of
        it with weights exp(-ensemble x age), age in steps counted from the oldest chunk (ACT); 0: all alike. Decisions are averaged too, and
        rounded.
    """

    def __init__(self, space: ActionSpace, execute: int, ensemble: float | None) -> None:
        self.execute, self.ensemble = execute, ensemble
        self.binary = np.array([name in space.binary for name in space.names])
        self.held: dict[int, list[np.ndarray]] = {}

    def reset(self, slot: int) -> None:
        """Forget an environment's chunks."""
        self.held.pop(slot, None)

    def wants(self, slot: int) -> bool:
        """Whether the policy is to be asked now."""
        return self.ensemble is not None or not self.held.get(slot)

    def add(self, slot: int, chunk: np.ndarray) -> None:
        """A new chunk that begins with the present step."""
        if self.ensemble is None:
            self.held[slot] = [chunk[: self.execute]]
        else:
            self.held.setdefault(slot, []).append(chunk)

    def next(self, slot: int) -> np.ndarray:
        """The action (A,) of the present step; all chunks move on by one."""
        chunks = self.held[slot]
        said = np.stack([c[0] for c in chunks])
        self.held[slot] = [c[1:] for c in chunks if len(c) > 1]
        if self.ensemble is None:
            return said[0]
        weights = np.exp(-self.ensemble * np.arange(len(said)))
        mean = (weights[:, None] * said).sum(0) / weights.sum()
        return np.where(self.binary, np.round(mean), mean).astype(np.float32)
