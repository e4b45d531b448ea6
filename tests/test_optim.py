"""Optimiser: learning rates of parts, frozen parts, and the schedule."""

from __future__ import annotations

from typing import Any

import pytest
from policies import make_policy

from vla.training.optim import OptimConfig, lr_factor, make_optimizer


def test_parts_have_their_own_learning_rate_or_are_frozen() -> None:
    policy = make_policy(head={"name": "regression"})
    config = OptimConfig(
        lr=0.2,
        lr_scale=0.5,
        lr_multipliers={"vision": 0.5, "vision.norm": 0.25},
        frozen=["decoder"],
        warmup_steps=100,
    )
    optimizer = make_optimizer(policy, config, 10)["optimizer"]
    warmup = 1 / 100  # of the first step
    rates = {
        id(parameter): group["lr"] / (0.2 * 0.5 * warmup)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in policy.named_parameters():
        frozen = name.startswith("decoder")
        assert frozen != (id(parameter) in rates) and frozen != parameter.requires_grad, name
        expected = 0.5 if name.startswith("vision") else 1.0
        expected = 0.25 if name.startswith("vision.norm") else expected
        assert frozen or rates[id(parameter)] == pytest.approx(expected), name


def test_vectors_have_no_weight_decay() -> None:
    policy = make_policy(head={"name": "regression"})
    groups = make_optimizer(policy, OptimConfig(weight_decay=0.1), 10)["optimizer"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert all(p.ndim < 2 for p in groups[1]["params"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_multipliers": {"visoin": 1.0}}, "lr_multipliers.visoin: no trainable .* vision"),
        ({"frozen": ["hed"]}, "no parameters in 'hed'; parts: .*heads"),
        ({"frozen": ["vision", "connector", "decoder", "heads"]}, "no trainable parameter is left"),
    ],
)
def test_wrong_names_are_refused_with_the_choices(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(make_policy(head={"name": "regression"}), OptimConfig(**options), 10)


def test_the_schedule_warms_up_and_falls_to_its_minimum() -> None:
    for schedule, middle, last in (("cosine", 0.51, 0.02), ("linear", 0.51, 0.02)):
        config = OptimConfig(warmup_steps=10, schedule=schedule, min_lr_ratio=0.02)
        factors = [lr_factor(config, step, 110) for step in (0, 9, 10, 60, 110)]
        assert factors == pytest.approx([0.1, 1.0, 1.0, middle, last])
    constant = OptimConfig(warmup_steps=10, schedule="constant")
    assert lr_factor(constant, 110, 110) == 1.0
