"""Data sheets of GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from vla.config.registry import nearest
from vla.errors import ConfigError


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet; rates of dense matrix products."""

    memory_gib: float
    tflops_16: float  # bfloat16 or float16
    tflops_32: float  # float32, without TF32


GPUS = {
    "b200": Gpu(180, 2250, 75),
    "h200": Gpu(141, 989, 67),
    "h100": Gpu(80, 989, 67),
    "a100": Gpu(80, 312, 19.5),
    "a100-40": Gpu(40, 312, 19.5),
    "l40s": Gpu(48, 362, 91.6),
    "a10": Gpu(24, 125, 31.2),
    "l4": Gpu(24, 121, 30.3),
    "rtx3090": Gpu(24, 71, 35.6),
    "rtx4090": Gpu(24, 165, 82.6),
    "rtx5090": Gpu(32, 210, 104.8),
    "t4": Gpu(16, 65, 8.1),
}


def find_gpu(name: str) -> Gpu:
    """The data sheet of a GPU.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in GPUS:
        raise ConfigError(
            f"--gpu {name}: unknown{nearest(name, GPUS)}; known GPUs: {', '.join(GPUS)}"
        )
    return GPUS[name]
