"""The kept policy of MT50: it loads, and uses the image and the instruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla import load_policy

POLICY = Path(__file__).parents[1] / "experiments" / "metaworld" / "policy"


def test_the_kept_policy_uses_image_and_instruction() -> None:
    policy = load_policy(POLICY)
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    state = np.array([0.0, 0.6, 0.2, 1.0], np.float32)
    first = policy.act(image, "Push the puck to a goal", state=state)
    assert first.shape == (8, 4)
    assert np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(policy.act(image, "Push the puck to a goal", state=state), first)
    for other in (
        policy.act(image, "Open a drawer", state=state),
        policy.act(image[:, ::-1].copy(), "Push the puck to a goal", state=state),
    ):
        assert np.abs(other - first).max() > 0.05
