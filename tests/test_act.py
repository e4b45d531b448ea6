"""``policy.act``: images, instructions and states in the forms that people have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from policies import make_policy

from vla.policies.observations import camera_images, observation_batch
from vla.policies.spec import RobotSpec
from vla.types import ActionSpace

SPACE = ActionSpace(("x", "grip"), ("m", ""), (-1.0, 0.0), (1.0, 1.0), binary=("grip",))
RNG = np.random.default_rng(0)


def image(height: int = 32, width: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def robot_spec(**changes: Any) -> RobotSpec:
    return RobotSpec(
        **{"action_space": SPACE, "cameras": ("top",), "image_size": (32, 32)} | changes
    )


def test_one_image_as_array_tensor_or_dict_gives_the_same_chunk() -> None:
    policy, one = make_policy(horizon=2), image()
    actions = policy.act(one, "pick up the red apple")
    assert actions.shape == (2, 8) and actions.dtype == np.float32
    for same in (torch.from_numpy(one), {"top": one}, {"top": torch.from_numpy(one)}):
        assert np.array_equal(policy.act(same, "pick up the red apple"), actions)
    bound = policy.robot().act(one, "pick up the red apple")
    assert np.array_equal(bound, actions)
    assert np.array_equal(policy.act(one, "pick up the red apple", robot="robot"), actions)
    images_BVTCHW = torch.from_numpy(one).permute(2, 0, 1)[None, None, None]
    expected, _ = policy.predict(images_BVTCHW, ["pick up the red apple"])
    assert np.array_equal(actions, expected[0])


def test_a_list_is_a_batch_with_one_instruction_or_one_for_each() -> None:
    policy, images = make_policy(), [image(), image()]
    both = policy.act(images, "pick the banana")
    assert both.shape == (2, 1, 8)
    mixed = policy.act([images[0], {"top": images[1]}], ["pick the banana"] * 2)
    assert np.array_equal(mixed, both)
    assert policy.act(images[:1], "pick the banana").shape == (1, 1, 8)


def test_several_cameras_keep_the_order_of_the_spec() -> None:
    spec, top, wrist = robot_spec(cameras=("top", "wrist")), image(), image()
    batch = observation_batch(spec, {"wrist": wrist, "top": top}, "pick")
    assert batch.images_BVTCHW.shape == (1, 2, 1, 3, 32, 32) and batch.single
    views = batch.images_BVTCHW[0, :, 0].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(views, [top, wrist])


def test_other_sizes_are_resized_with_lanczos() -> None:
    large = image(48, 64)
    found = camera_images(robot_spec(), large)["top"]
    resized = Image.fromarray(large).resize((32, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(found, np.asarray(resized))
    unknown = camera_images(robot_spec(image_size=(0, 0)), large)["top"]
    assert np.array_equal(unknown, large)


def test_the_state_has_one_row_for_each_observation() -> None:
    spec = robot_spec(state_dim=2)
    one = observation_batch(spec, image(), "pick", [1.0, 2.0])
    assert one.state_BTP is not None and one.state_BTP.tolist() == [[[1.0, 2.0]]]
    two = observation_batch(spec, [image(), image()], "pick", [[1, 2], [3, 4]])
    assert two.state_BTP is not None and two.state_BTP.shape == (2, 1, 2)
    assert observation_batch(robot_spec(), image(), "pick", [1.0]).state_BTP is None


@pytest.mark.parametrize(
    ("changes", "images", "options", "message"),
    [
        ({}, np.zeros((32, 32, 3)), {}, r"uint8 image with values 0 to 255; got float64 .*255 \*"),
        ({}, np.full((32, 32, 3), 200, np.int64), {}, "got int64 with values 200 to 200; convert"),
        ({}, image().transpose(2, 0, 1), {}, r"got shape \(3, 32, 32\); move the channels last"),
        ({}, np.zeros((4, 32, 32, 3), np.uint8), {}, "give a batch as a list of images"),
        ({}, image()[..., 0], {}, r"expected an \(H, W, 3\) uint8 image; got shape \(32, 32\)"),
        ({}, "top.png", {}, "numpy array or torch tensor; got str"),
        ({}, np.zeros((5000, 8, 3), np.uint8), {}, "at most 4096 pixels a side"),
        ({}, [], {}, "the list is empty"),
        ({}, {"wrist": image()}, {}, "no image for camera 'top'; the policy has top, the .* wrist"),
        ({}, {"top": image(), "arm": image()}, {}, "unknown camera 'arm'; the policy has top"),
        ({"cameras": ("top", "wrist")}, image(), {}, r"2 cameras \(top, wrist\); give a dict"),
        ({"history": 6}, image(), {}, "history of 6 frames; use .*PolicyRunner"),
        ({}, image(), {"instruction": " "}, "a text that is not empty, got ' '"),
        ({}, image(), {"instruction": ["pick"]}, "one text for one observation"),
        ({}, [image()] * 2, {"instruction": ["a"] * 3}, "2 texts for 2 observations; got 3"),
        ({"state_dim": 2}, image(), {}, r"needs \(2,\) finite numbers .*; got none; give state="),
        ({"state_dim": 2}, image(), {"state": [1.0]}, r"got shape \(1,\)"),
        ({"state_dim": 1}, image(), {"state": [float("nan")]}, "got NaN or infinity"),
        ({"state_dim": 1}, image(), {"state": ["left"]}, "got list"),
    ],
)
def test_invalid_observations_name_what_was_expected_and_given(
    changes: dict[str, Any], images: Any, options: dict[str, Any], message: str
) -> None:
    options = {"instruction": "pick"} | options
    with pytest.raises(ValueError, match=message):
        observation_batch(robot_spec(**changes), images, **options)
