"""How action chunks are executed: horizon, temporal ensembling, and what happens during a call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from vla.errors import ConfigError

Mode = Literal["synchronous", "asynchronous", "delay_aware"]
# Option of ``Execution`` -> option of ``vla eval`` and ``vla serve``.
_COMMAND_LINE = {
    "horizon": "--execution-horizon",
    "temporal_ensemble": "--temporal-ensemble",
    "mode": "--execution-mode",
    "delay": "--delay-steps",
}


@dataclass(frozen=True)
class Execution:
    """Execution of action chunks; saved with a policy as its default for ``vla eval`` and serving.

    Without options the whole chunk is executed before the policy predicts the next one.
    """

    # Actions of a chunk that are executed before the policy predicts the next chunk, 1 to
    # data.window.horizon; null: the whole chunk, and half of it if the mode is not synchronous.
    horizon: int | None = None
    # Temporal ensembling (ACT, arXiv 2304.13705): predict a chunk at every step, and average all
    # predictions of that step with weights exp(-temporal_ensemble * k), k = 0 for the oldest
    # chunk. ACT uses 0.01; 0 weights all alike; negative values favour new chunks; null: off.
    temporal_ensemble: float | None = None
    # What the robot does while the policy predicts. synchronous: it waits. asynchronous: it
    # executes the rest of the old chunk, then the new chunk from its first action. delay_aware:
    # likewise, but the steps of the new chunk that are past by then are dropped (arXiv 2506.07339).
    mode: Mode = "synchronous"
    # Control steps that a prediction takes, for the other two modes: it starts when this many
    # actions of the old chunk are left. 0 to the execution horizon; null: measured.
    delay: int | None = None
    # delay_aware: condition the new chunk on the actions that are executed while it is predicted
    # (real-time chunking), where the head can: flow, and token with one symbol per number.
    condition: bool = True

    @property
    def is_default(self) -> bool:
        """True if whole chunks are executed."""
        return self == Execution()

    @property
    def overlaps(self) -> bool:
        """True if the robot executes old actions while the policy predicts."""
        return self.mode != "synchronous"

    def steps_per_call(self, chunk_length: int) -> int:
        """Actions that are executed before the policy predicts again."""
        if self.temporal_ensemble is not None:
            return 1
        return self.horizon or (max(1, chunk_length // 2) if self.overlaps else chunk_length)

    def largest_delay(self, chunk_length: int) -> int:
        """Control steps of the longest prediction during which the robot has actions."""
        steps = self.steps_per_call(chunk_length)
        left = chunk_length - steps if self.mode == "delay_aware" else chunk_length
        return min(steps, left) if self.overlaps else 0

    def problems(self, chunk_length: int) -> Iterator[tuple[str, str]]:
        """Options that do not fit chunks of this length or each other, with the reason."""
        horizon = self.horizon
        if horizon is not None and not 1 <= horizon <= chunk_length:
            choices = "1" if chunk_length == 1 else f"1 to {chunk_length}"
            yield (
                "horizon",
                f"expected {choices}, the length of the policy's action chunks, got {horizon}",
            )
            return
        yield from self._problems_of_ensembling(chunk_length)
        yield from self._problems_of_delay(chunk_length)

    def _problems_of_ensembling(self, chunk_length: int) -> Iterator[tuple[str, str]]:
        horizon, ensemble = self.horizon, self.temporal_ensemble
        if ensemble is None:
            return
        if not math.isfinite(ensemble):
            yield "temporal_ensemble", f"expected a finite number, got {ensemble}"
        if chunk_length == 1:
            yield (
                "temporal_ensemble",
                "the policy predicts one action per call, so there are no predictions to average; "
                "train it with data.window.horizon above 1, or leave this option out",
            )
        elif horizon is not None and horizon > 1:
            yield (
                "temporal_ensemble",
                f"it needs a new chunk at every step, but the execution horizon is {horizon}; "
                "leave one of the two options out",
            )
        if self.overlaps:
            yield (
                "temporal_ensemble",
                f"the mode {self.mode} joins chunks without averaging; leave one of the two out",
            )

    def _problems_of_delay(self, chunk_length: int) -> Iterator[tuple[str, str]]:
        if not self.overlaps:
            if self.delay is not None:
                yield "delay", "it needs the mode asynchronous or delay_aware"
            return
        steps, largest = self.steps_per_call(chunk_length), self.largest_delay(chunk_length)
        if self.delay is None and largest < 1:
            yield (
                "mode",
                f"{self.mode} executes old actions during a prediction, but chunks of "
                f"{chunk_length} have none left after {steps}; choose a shorter execution horizon, "
                "or train with a larger data.window.horizon",
            )
        elif self.delay is not None and not 0 <= self.delay <= largest:
            yield (
                "delay",
                f"expected 0 to {largest} control steps, got {self.delay}: chunks of "
                f"{chunk_length} must hold the delay and the {steps} executed steps, and the delay "
                "must not exceed these; change the execution horizon, or train with a larger "
                "data.window.horizon",
            )

    def check(self, chunk_length: int, names: dict[str, str] | None = None) -> Execution:
        """This execution, if it fits chunks of this length.

        ``names``: option -> its name in the message; default: the keys of the run's YAML.

        Raises:
            ConfigError: the first problem.
        """
        for option, problem in self.problems(chunk_length):
            name = (names or {}).get(option, f"execution.{option}")
            raise ConfigError(f"{name}: {problem}")
        return self


def chosen_execution(
    spec: Any,
    horizon: int | None = None,
    temporal_ensemble: float | None = None,
    mode: Mode | None = None,
    delay: int | None = None,
) -> Execution:
    """The execution of the command line; without its options the one saved with the policy.

    One given option replaces the whole saved execution.

    Args:
        spec: a ``RobotSpec``, whose module imports this one.
        horizon, temporal_ensemble, mode, delay: see ``Execution``; None: not given.

    Raises:
        ConfigError: the options do not fit the policy; the message names the option.
    """
    if (horizon, temporal_ensemble, mode, delay) == (None, None, None, None):
        return spec.execution
    given = Execution(horizon, temporal_ensemble, mode or "synchronous", delay)
    return given.check(spec.horizon, _COMMAND_LINE)
