"""How action chunks are executed: execution horizon and temporal ensembling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vla.errors import ConfigError

# Option of ``Execution`` -> option of ``vla eval`` and ``vla serve``.
_COMMAND_LINE = {
    "horizon": "--execution-horizon",
    "temporal_ensemble": "--temporal-ensemble",
}


@dataclass(frozen=True)
class Execution:
    """Execution of action chunks; saved with a policy as its default for ``vla eval`` and serving.

    Without options the whole chunk is executed before the policy predicts the next one.
    """

    # Actions of a chunk that are executed before the policy predicts the next chunk, 1 to
    # data.window.horizon; null: the whole chunk.
    horizon: int | None = None
    # Temporal ensembling (ACT, arXiv 2304.13705): predict a chunk at every step, and average all
    # predictions of that step with weights exp(-temporal_ensemble * k), k = 0 for the oldest
    # chunk. ACT uses 0.01; 0 weights all alike; negative values favour new chunks; null: off.
    temporal_ensemble: float | None = None

    @property
    def is_default(self) -> bool:
        """True if whole chunks are executed."""
        return self == Execution()

    def steps_per_call(self, chunk_length: int) -> int:
        """Actions that are executed before the policy predicts again."""
        return 1 if self.temporal_ensemble is not None else self.horizon or chunk_length

    def problems(self, chunk_length: int) -> Iterator[tuple[str, str]]:
        """Options that do not fit chunks of this length or each other, with the reason."""
        horizon, ensemble = self.horizon, self.temporal_ensemble
        if horizon is not None and not 1 <= horizon <= chunk_length:
            choices = "1" if chunk_length == 1 else f"1 to {chunk_length}"
            yield (
                "horizon",
                f"expected {choices}, the length of the policy's action chunks, got {horizon}",
            )
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


def chosen_execution(spec: Any, horizon: int | None, temporal_ensemble: float | None) -> Execution:
    """The execution of the command line; without its options the one saved with the policy.

    One given option replaces the whole saved execution.

    Args:
        spec: a ``RobotSpec``, whose module imports this one.
        horizon, temporal_ensemble: see ``Execution``; None: not given.

    Raises:
        ConfigError: the options do not fit the policy; the message names the option.
    """
    given = Execution(horizon, temporal_ensemble)
    return spec.execution if given.is_default else given.check(spec.horizon, _COMMAND_LINE)
