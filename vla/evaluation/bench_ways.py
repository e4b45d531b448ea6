"""The ways to decode that ``vla bench`` compares."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

from vla.inference.engine import final_weights, speed_up
from vla.inference.quantize import quantize_int8
from vla.models.decoders.drafts import Draft
from vla.policies.bound import BoundPolicy
from vla.utils.device import synchronize


class _Clock:
    """Times of the parts of one prediction, in ms: every prefill and every decoding pass."""

    def __init__(self, decoder: Any) -> None:
        self.parts: dict[str, list[float]] = {"prefill": [], "decode_step": []}
        self._decoder = decoder

    def __enter__(self) -> _Clock:
        for name, times in self.parts.items():
            setattr(self._decoder, name, self._timed(getattr(self._decoder, name), times))
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.parts:
            delattr(self._decoder, name)

    def _timed(self, method: Any, times: list[float]) -> Any:
        def run(*args: Any) -> Any:
            begun, device = time.perf_counter(), self._decoder.lm.device
            out = method(*args)
            synchronize(device)
            times.append(1e3 * (time.perf_counter() - begun))
            return out

        return run


class Way:
    """One way to decode, with its times in ms and the tokens of its last step.

    Args:
        decoder: that it uses.
        static: its ``StaticDecoding``, or None.
        exact: it gives the tokens of the first way.
    """

    def __init__(
        self, name: str, decoder: Any, drafts: bool, static: Any = None, exact: bool = True
    ) -> None:
        self.name, self.drafts, self.static, self.exact = name, drafts, static, exact
        self.decoder, self.draft = decoder, Draft()
        self.rows: list[dict[str, float]] = []
        self._equal: list[tuple[int, int]] = []  # equal tokens, and all, of every compared text

    def predict(self, head: Any, prefix: Any, instruction: str) -> Any:
        """The prediction of one step; its times are appended to ``rows``."""
        decoder = self.decoder
        decoder.drafts, decoder.static = self.drafts, self.static
        before = self.draft.passes, self.draft.tokens
        with _Clock(decoder) as clock:
            begun = time.perf_counter()
            out = head.predict(decoder, prefix, [instruction], drafts=[self.draft])
            synchronize(decoder.lm.device)
            total = 1e3 * (time.perf_counter() - begun)
        steps = clock.parts["decode_step"]
        self.rows.append(
            {
                "ms": total,
                "prefill_ms": sum(clock.parts["prefill"]),
                "decode_ms": sum(steps),
                "step_ms": statistics.median(steps) if steps else float("nan"),
                "passes": self.draft.passes - before[0],
                "tokens": self.draft.tokens - before[1],
            }
        )
        return out

    def compare(self, expected: list[int]) -> None:
        """Compare the tokens of the last step with those of the exact ways."""
        pairs = zip(expected, self.draft.ids, strict=False)
        longest = max(len(expected), len(self.draft.ids))
        self._equal.append((sum(a == b for a, b in pairs), longest))

    def agreement(self) -> dict[str, float]:
        """Share of equal tokens, and steps with equal texts, of all compared ones."""
        equal, count = (sum(column) for column in zip(*self._equal, strict=True))
        same = sum(a == b for a, b in self._equal)
        return {
            "equal_tokens": round(equal / count, 4),
            "equal_steps": same,
            "of": len(self._equal),
        }


def ways_to_decode(policy: BoundPolicy, compiled: bool, quantize: str | None) -> list[Way]:
    """The ways that this policy has: the first is the slowest, int8 weights are last."""
    model: Any = policy.policy
    decoder = model.decoder
    takes, other = decoder.drafts, None
    if quantize is not None:
        final_weights(decoder)
        other = copy.deepcopy(decoder)
        quantize_int8(other)
    static = decoder.static if speed_up(policy, compiled) else None
    name = "static cache" + (", compiled" if static and static.form == "compiled" else "")
    ways = [Way("one token a pass", decoder, False), Way("drafts", decoder, takes)]
    if static is not None:
        ways += [
            Way(f"one token a pass, {name}", decoder, False, static),
            Way(f"drafts, {name}", decoder, takes, static),
        ]
    if other is not None:
        model.decoder = other
        static = other.static if speed_up(policy, compiled) else None
        model.decoder = decoder
        ways.append(Way(f"drafts, {name}, {quantize}", other, takes, static, False))
    return ways
