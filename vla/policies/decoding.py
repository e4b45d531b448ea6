"""Options of text generation that a loaded policy may change: plans and sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from vla.errors import ConfigError
from vla.policies.bound import BoundPolicy


@dataclass(frozen=True)
class DecodingOptions:
    """Changes of a policy's decoding; None: as in its configuration."""

    # Write a plan before the action: false, true, or auto; the policy must be trained with auto.
    plan: Literal[False, True, "auto"] | None = None
    temperature: float | None = None  # see ``Sampling``; 0: the most likely tokens
    top_k: int | None = None  # see ``Sampling``; 0: all allowed tokens
    seed: int | None = None  # of sampling


def set_decoding(policy: BoundPolicy, options: DecodingOptions | None) -> None:
    """Change how a policy generates plans and action tokens; None changes nothing.

    Raises:
        ConfigError: the policy's head generates no text, is not trained for this choice of plans,
            or an option of sampling is invalid.
    """
    given = {k: v for k, v in vars(options).items() if v is not None} if options else {}
    if not given:
        return
    heads = getattr(policy.policy, "heads", None)
    head: Any = None if heads is None else policy.policy.head(policy.robot)
    if not hasattr(head, "plan_format"):
        raise ConfigError(
            f"{', '.join(given)}: this policy generates no text; these options need the head "
            "token or chain_of_thought"
        )
    mode = given.pop("plan", None)
    try:
        if mode is not None:
            head.plan_format.set_mode(mode)
        sampling = replace(head.sampling, **given)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if "seed" in given and not sampling.temperature:
        raise ConfigError("seed: temperature 0 is greedy decoding; set a temperature above 0")
    head.sampling = sampling
