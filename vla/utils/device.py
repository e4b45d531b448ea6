"""Choice of the torch device, and precision outside of Lightning's trainer."""

from __future__ import annotations

import os

import torch


def resolve(device: str) -> str:
    """The device name; ``auto`` is ``cuda`` if there is a GPU, else ``cpu``.

    Raises:
        ValueError: torch does not know the device, or this machine does not have it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"--device {device}: {reason}; choose auto, cpu, or cuda on a machine that has one"
        ) from None
    return device


def describe() -> str:
    """The device that ``auto`` takes, for people: the GPU with its memory, or the CPU cores."""
    if not torch.cuda.is_available():
        return f"cpu ({os.cpu_count()} cores, no CUDA GPU found)"
    gpu = torch.cuda.get_device_properties(0)
    count = torch.cuda.device_count()
    return f"cuda ({count} x {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB)"


def autocast(precision: str, device: str | torch.device) -> torch.autocast:
    """The autocast context of a trainer's ``precision`` (32-true, bf16-mixed, 16-mixed)."""
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype, enabled=precision.endswith("mixed"))


def synchronize(device: str | torch.device) -> None:
    """Wait until a GPU has finished its work, for time measurements."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
