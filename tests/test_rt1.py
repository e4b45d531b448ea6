"""RT-1: conditioned on the instruction by FiLM, uses frame history, and acts like any policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from policies import robot_loss
from rt1_policy import RT1, make_rt1, rt1_batch

from vla.policies.checkpoint import load_policy, save_policy
from vla.types import Batch, WebBatch


def randomise_film(policy: torch.nn.Module) -> None:
    """New FiLM layers are the identity; random ones depend on the instruction."""
    for film in policy.vision.films:
        torch.nn.init.normal_(film.shift_scale.weight, std=0.5)


def test_film_starts_as_the_identity_and_then_depends_on_the_instruction() -> None:
    policy, images = make_rt1().eval(), rt1_batch().images_BVTCHW
    texts, rows = ["pick the banana", "where is the apple"], torch.tensor([0, 0])
    first, second = policy.logits(images, rows, texts)
    assert first.shape == (1, 11, 256) and torch.allclose(first, second, atol=1e-6)
    randomise_film(policy)
    first, second = policy.logits(images, rows, texts)
    assert not torch.allclose(first, second, atol=1e-4)


def test_everything_but_the_sentence_encoder_is_trained() -> None:
    policy = make_rt1().train()
    robot_loss(policy, rt1_batch()).loss_M.mean().backward()
    trained = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    assert trained and all(p.grad is not None for p in trained.values())
    assert not any(p.requires_grad for p in policy.text.parameters())
    assert not policy.text.training


def test_a_saved_policy_predicts_the_same_actions(tmp_path: Path) -> None:
    policy, images = make_rt1().eval(), rt1_batch().images_BVTCHW
    randomise_film(policy)
    texts = ["pick the banana", "where is the apple"]
    actions, _ = policy.predict(images, texts)
    loaded = load_policy(save_policy(policy, RT1, tmp_path / "policy"), "cpu")
    assert np.array_equal(loaded.predict(images, texts)[0], actions)


def test_web_data_is_refused() -> None:
    web = WebBatch(
        torch.zeros(1, 3, 32, 32),
        ["what is this?"],
        ["apple"],
        torch.tensor([0]),
        torch.tensor([True]),
        ["web"],
    )
    with pytest.raises(ValueError, match="answers no questions"):
        make_rt1().losses(Batch([rt1_batch()], web))


def test_the_oldest_frame_changes_the_prediction() -> None:
    policy, images = make_rt1().eval(), rt1_batch().images_BVTCHW
    other = images.clone()
    other[:, :, 0] = 255 - other[:, :, 0]
    rows, texts = torch.arange(2), ["pick"] * 2
    first, second = (policy.logits(x, rows, texts) for x in (images, other))
    assert not torch.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_instructions_that_share_an_image_equal_instructions_with_copies(training: bool) -> None:
    policy, images = make_rt1().train(training), rt1_batch().images_BVTCHW
    randomise_film(policy)
    texts = ["pick the banana", "where is the apple", "move", "pick"]
    rows = torch.tensor([1, 0, 1, 0])
    shared = policy.logits(images, rows, texts)
    copies = policy.logits(images[rows], torch.arange(4), texts)
    assert torch.allclose(shared, copies, atol=1e-4)
    assert not torch.allclose(shared[0], shared[1], atol=1e-2)


@pytest.mark.slow
def test_gradients_of_shared_images_are_deterministic_with_two_threads() -> None:
    """The gradient of an image is a sum over its instructions, in a fixed order."""
    policy, threads = make_rt1(), torch.get_num_threads()
    randomise_film(policy)
    rows = torch.arange(8).repeat_interleave(5)[torch.randperm(40)]
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    condition = torch.randn(40, 32)
    weight = next(policy.vision.stem.parameters())
    torch.set_num_threads(2)
    try:
        gradients = []
        for _ in range(16):
            tokens = policy.vision(images, condition, rows)
            loss = (tokens * torch.linspace(-1, 1, tokens.numel()).view_as(tokens)).sum()
            gradients.append(torch.autograd.grad(loss, weight)[0])
    finally:
        torch.set_num_threads(threads)
    assert gradients[0].abs().max() > 0
    assert all(torch.equal(gradients[0], g) for g in gradients)
