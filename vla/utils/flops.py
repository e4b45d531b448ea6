"""Floating-point operations of a model, and the largest rate of a device."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_SECONDS = 0.3  # of the first measurement
_WIDTHS = {"cuda": (4096, 8192), "cpu": (256, 512, 1024)}


def flop_counter() -> FlopCounterMode:
    """torch's counter of the products of a model, with attention also on a CPU.

    torch's own table has the attention kernels of GPUs only.
    """
    aten = torch.ops.aten
    own = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=own)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


class PeakRate:
    """The largest FLOP/s seen on a device so far, which is the 100 % of a utilisation.

    It is that of the fastest single product of two square matrices, and not a mean: other
    programs that use the device at times do not lower it. Rates of a model are rates of the
    device too, so a utilisation is at most 1.

    Args:
        device: of the products.
        dtype: of their factors.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype, self.flops = device, dtype, 0.0
        widths = _WIDTHS["cuda" if device.type == "cuda" else "cpu"]
        self.width = widths[0]
        end = time.perf_counter() + _SECONDS
        while time.perf_counter() < end:
            for width in widths:
                if self.measure(width):
                    self.width = width

    def measure(self, width: int | None = None) -> bool:
        """One more product, of the fastest width by default; True if it is the fastest one."""
        width = width or self.width
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            a = torch.ones(width, width, device=self.device, dtype=self.dtype)
            a @ a  # the first one allocates
            self._wait()
            start = time.perf_counter()
            a @ a
            self._wait()
        return self._see(2 * width**3 / (time.perf_counter() - start))

    def utilisation(self, rate: float) -> float:
        """``rate`` in FLOP/s divided by the peak, 0 to 1."""
        self._see(rate)
        return rate / self.flops

    def _see(self, rate: float) -> bool:
        faster = rate > self.flops
        self.flops = max(self.flops, rate)
        return faster

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
