"""Counted FLOPs of a model, and the utilisation of a device."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from vla.utils.flops import PeakRate, flop_counter


def test_attention_counts_on_a_cpu_as_its_matrix_products_do() -> None:
    counts = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        inputs = [torch.randn(2, 2, 16, 8, requires_grad=True) for _ in range(3)]
        with sdpa_kernel(backend), flop_counter() as counter:
            scaled_dot_product_attention(*inputs).sum().backward()
        counts.append(counter.get_total_flops())
    forward = 2 * 2 * (2 * 2 * 16 * 16 * 8)
    assert counts[1] == 3 * forward
    assert counts[0] == 3.5 * forward  # backward computes the scores again


def test_a_utilisation_is_at_most_one_and_relative_to_the_fastest_product() -> None:
    peak = PeakRate(torch.device("cpu"))
    first = peak.flops
    assert 0 < peak.utilisation(first / 4) == 0.25
    peak.measure()
    assert peak.flops >= first  # a slow product does not lower the peak
    fast = 3 * peak.flops  # the device was busy with other programs until now
    assert peak.utilisation(fast) == 1.0
    assert peak.utilisation(fast / 2) == 0.5
