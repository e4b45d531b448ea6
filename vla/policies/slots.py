"""Checks that the slots of a ``VLAPolicy`` fit together and fit its robots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla.errors import ConfigError
from vla.policies.spec import RobotSpec


def has_cameras(specs: Mapping[str, RobotSpec]) -> bool:
    """True if any robot has a camera; otherwise the policy has no vision encoder."""
    return any(spec.cameras for spec in specs.values())


def check_slots(config: Any, decoder: Any, specs: Mapping[str, RobotSpec]) -> None:
    """Compare the slots with the decoder and the robots.

    Vision and connector are given exactly if the decoder needs them. A policy whose robots have
    no cameras needs neither; it needs the state.

    Args:
        config: a ``VLAPolicyConfig``, whose module imports this one.

    Raises:
        ConfigError: the slots do not fit together.
    """
    blind = [name for name, spec in specs.items() if not spec.cameras]
    if blind and not config.state:
        raise ConfigError(
            f"policy: robot {blind[0]!r} has neither cameras nor a state input; "
            "set policy.state=true, or use cameras (data.window.cameras)"
        )
    if blind and decoder.is_vlm:
        raise ConfigError(
            f"policy: decoder {type(decoder).__name__} needs images and robot {blind[0]!r} has no "
            "cameras; use a language model such as policy.decoder=gpt2_small4"
        )
    given = [config.vision is not None, config.connector is not None]
    unused = not has_cameras(specs) and given == [False, False]
    if given != [not decoder.is_vlm] * 2 and not unused:
        advice = "needs vision and connector; give both"
        if decoder.is_vlm:
            advice = "has its own vision encoder: remove vision and connector"
        raise ConfigError(f"policy: decoder {type(decoder).__name__} {advice}")
