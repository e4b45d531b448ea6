"""Where a policy runs when nobody says, and a run's precision outside of its trainer."""

from __future__ import annotations

import torch


def resolve(device: str) -> str:
    """``auto``: ``cuda`` where there is one, else ``cpu``; any other name stays.

    Raises:
        ValueError: torch knows no such device, or it is not on this machine.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--device {device}: {reason}; choose auto, cpu, or cuda on a machine that has one") from None
    return device


def computing_in(precision: str, device: str | torch.device) -> torch.autocast:
    """A trainer's ``precision`` (32-true, bf16-mixed, 16-mixed) for code that runs outside of one."""
    kind = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(torch.device(device).type, kind, enabled=precision.endswith("mixed"))


def wait_for(device: str | torch.device) -> None:
    """Until a GPU has done what it was asked, so that a clock can be read."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
