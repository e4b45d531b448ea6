"""Policies: decoding and validation agree with the loss; free answers are text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from families import decoder_config
from policies import (
    ACTION_HEADS,
    VISION_ENCODERS,
    build_policy,
    config_id,
    make_policy,
    robot_batch,
    robot_loss,
)

from vla.benchmarks.tabletop.layouts import LAYOUTS


def test_greedy_decoding_writes_the_actions_that_the_loss_fits() -> None:
    """After overfitting, decoded actions equal the targets up to half a bin."""
    policy, batch = make_policy(horizon=2), robot_batch(rows=2, horizon=2)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    policy.train()
    for _ in range(150):
        optimizer.zero_grad()
        out = robot_loss(policy, batch)
        out.loss_M.mean().backward()
        optimizer.step()
    assert bool(out.right_M.all())
    policy.eval()
    first = [0, 2]
    decoded = policy.predict(batch.images_BVTCHW, [batch.instructions[k] for k in first])[0]
    half_bin = (np.array(LAYOUTS["rt2"].high) - np.array(LAYOUTS["rt2"].low)) / 256
    assert (np.abs(decoded - batch.actions_KHA[first].numpy()) <= half_bin + 1e-6).all()


def test_free_answers_are_text() -> None:
    policy = make_policy()
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    answers = policy.answer(images, ["what kind of thing is the fruit?"] * 2, 5)
    assert len(answers) == 2 and answers[0] == answers[1] and isinstance(answers[0], str)


@pytest.mark.parametrize("head", ["regression", "mixture", "flow"])
def test_validation_errors_are_those_of_the_predicted_actions(head: str) -> None:
    policy, batch = make_policy({"name": head}, horizon=2), robot_batch(rows=3, horizon=2)
    rows = [0, 2, 4]
    instructions = [batch.instructions[k] for k in rows]

    def predicted() -> torch.Tensor:
        prefix = policy.prefix(batch.images_BVTCHW, "robot")
        made = policy.head().predict(policy.decoder, prefix, instructions)
        return made.normalized_actions_BHA

    in_loss = robot_loss(policy, batch).normalized_actions_KHA[rows]
    assert torch.allclose(in_loss, predicted(), atol=1e-5)
    if head == "flow":  # with noise, every prediction is another sample
        policy.head().noise = 1.0
        assert not torch.equal(predicted(), predicted())


@pytest.mark.parametrize("head", ACTION_HEADS, ids=config_id)
def test_values_behind_the_end_of_an_episode_change_no_loss(head: dict[str, Any]) -> None:
    config = {
        "vision": VISION_ENCODERS[0],
        "connector": {"name": "mlp"},
        "decoder": decoder_config("gpt2"),
        "head": head,
    }
    policy, batch = build_policy(config).eval(), robot_batch(2, 2)
    batch.mask_KH[1:, 1] = False
    losses = []
    for value in (-3.0, 50.0):
        batch.actions_KHA[1:, 1] = value
        torch.manual_seed(0)  # noise and time of flow matching
        losses.append(robot_loss(policy, batch).loss_M)
    assert torch.equal(*losses)
