"""``policy.act``: images, instructions and states in the forms that people have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from policies import make_policy

from vla.policies.observations import camera_images, observation_batch, rgb_image
from vla.policies.spec import RobotSpec
from vla.types import ActionSpace
from vla.utils.resize import fit_image

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
        ({}, image() - 300.0, {}, r"an \(H, W, 3\) uint8 image: image with values from -300 to"),
        ({}, np.full((32, 32, 3), np.nan), {}, "uint8 image: image with NaN or infinite values"),
        ({}, np.full((32, 32, 1), 3000, np.uint16), {}, "uint16 values .* up to 3000, a depth"),
        ({}, np.zeros((4, 32, 32, 3), np.uint8), {}, "give a batch as a list of images"),
        ({}, image()[..., :2], {}, r"uint8 image: image of shape \(32, 32, 2\)"),
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


def test_images_of_other_types_are_converted_where_their_meaning_is_clear() -> None:
    one, spec = image(), robot_spec()
    grey = np.repeat(one[..., :1], 3, 2)
    for other, same in (
        (one.transpose(2, 0, 1), one),
        ((one / 255).astype(np.float32), one),
        (one.astype(np.float64), one),
        (one.astype(np.int64), one),
        (np.concatenate([one, one[..., :1]], -1), one),
        (one[None], one),
        (one[..., 0], grey),
        (one[..., :1], grey),
        (torch.from_numpy(one).permute(2, 0, 1).float() / 255, one),
    ):
        assert np.array_equal(camera_images(spec, other)["top"], same)
    dark = np.full((32, 32, 3), 1.0)
    assert rgb_image(dark, "top").max() == 255 and rgb_image(dark, "top", peak=255).max() == 1


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_raw_image_and_the_image_fitted_by_the_client_are_the_same(fit: Any) -> None:
    spec, raw = robot_spec(image_fit=fit, image_size=(24, 32)), image(50, 30)
    fitted = fit_image(raw, (24, 32), fit)
    assert np.array_equal(camera_images(spec, raw)["top"], fitted)
    assert np.array_equal(camera_images(spec, fitted)["top"], fitted)
    others = {fit_image(raw, (24, 32), f).tobytes() for f in ("stretch", "crop", "pad")}
    assert len(others) == 3


def test_an_image_of_a_billion_pixels_is_refused_before_memory_is_used() -> None:
    huge = np.broadcast_to(np.float64(0), (40_000, 40_000, 3))
    with pytest.raises(ValueError, match="at most 4096 pixels a side"):
        camera_images(robot_spec(), huge)
