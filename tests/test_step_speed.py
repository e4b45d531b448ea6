"""What makes a training step on a CPU faster does not change its result."""

from __future__ import annotations

import copy

import pytest
import torch
from policies import make_policy, robot_batch, robot_loss

from vla.models.decoders import masks
from vla.training.optim import OptimConfig, make_optimizer


def test_layers_share_an_additive_mask_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = make_policy(), robot_batch()
    policy.train()
    with torch.no_grad():
        expected = robot_loss(policy, batch).loss_M
    made, additive = list[torch.Tensor](), masks._additive

    def counted(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        made.append(additive(mask, dtype))
        return made[-1]

    monkeypatch.setattr(masks, "_additive", counted)
    found = robot_loss(policy, batch).loss_M
    layers = len(made)
    with torch.no_grad():
        robot_loss(policy, batch)
    assert len(made) == layers == len(policy.decoder.layers)
    assert len({id(mask) for mask in made}) == 1
    torch.testing.assert_close(found, expected)


def test_the_fused_optimiser_has_the_same_steps() -> None:
    first = make_policy()
    second, batch = copy.deepcopy(first), robot_batch()
    for policy, fused in ((first, True), (second, False)):
        optimizer = make_optimizer(policy, OptimConfig(), 10, fused=fused)["optimizer"]
        assert bool(optimizer.defaults["fused"]) == fused
        for _ in range(3):
            optimizer.zero_grad()
            robot_loss(policy, batch).loss_M.mean().backward()
            optimizer.step()
    for name, weight in first.named_parameters():
        torch.testing.assert_close(weight, second.get_parameter(name), rtol=1e-3, atol=2e-5)
