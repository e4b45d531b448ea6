"""Image augmentation: equal for all frames of a camera, repeatable, only in training."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.data.augment import AugmentConfig, augmented
from vla.data.config import DataConfig, WindowConfig
from vla.data.pipeline import BatchStream
from vla.types import RobotBatch

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3), dtype=np.uint8).repeat(2, 0)
share = st.floats(0, 1, allow_subnormal=False)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 1), share, share, share, st.floats(0, 0.5), st.integers(0, 99))
def test_all_frames_change_in_the_same_repeatable_way(
    crop: float, brightness: float, contrast: float, saturation: float, hue: float, seed: int
) -> None:
    config = AugmentConfig(crop, brightness, contrast, saturation, hue)
    made = augmented(IMAGES, config, random.Random(seed))
    assert made.shape == IMAGES.shape and made.dtype == np.uint8
    assert np.array_equal(made[0], made[1]) and np.array_equal(
        made, augmented(IMAGES, config, random.Random(seed))
    )


def test_the_default_changes_nothing() -> None:
    assert np.array_equal(augmented(IMAGES, AugmentConfig(), random.Random(0)), IMAGES)


def test_a_crop_is_a_part_of_the_image() -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[None, None, :, None].repeat(64, 1).repeat(3, 3)
    made = augmented(ramp, AugmentConfig(crop=0.5), random.Random(3)).astype(int)
    assert made.max() - made.min() < 250 and (np.diff(made[0, 0, :, 0]) >= 0).all()


def test_robot_images_are_augmented_only_in_training(tiny_data: dict[str, str]) -> None:
    def first(train: bool, augment: AugmentConfig) -> RobotBatch:
        config = DataConfig(
            {"robot": tiny_data["robot"]},
            {"robot": 1.0},
            WindowConfig(history=2),
            shuffle=20,
            augment=augment,
        )
        return next(iter(BatchStream(config, 4, train))).robots[0]

    strong = AugmentConfig(crop=0.8, brightness=0.4)
    for train in (True, False):
        plain, varied = first(train, AugmentConfig()), first(train, strong)
        assert torch.equal(plain.actions_KHA, varied.actions_KHA)
        assert torch.equal(plain.images_BVTCHW, varied.images_BVTCHW) == (not train)
    assert torch.equal(first(True, strong).images_BVTCHW, first(True, strong).images_BVTCHW)


@pytest.mark.parametrize(
    "wrong", [{"crop": 0.0}, {"crop": 1.5}, {"hue": 0.6}, {"brightness": -0.1}]
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"data.augment.{next(iter(wrong))}="):
        AugmentConfig(**wrong)
