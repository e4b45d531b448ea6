"""Cameras and state fields are found by name, never by position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vla.policies.names import find_name, flatten, image_fields, joined_state, match_cameras


@pytest.mark.parametrize(
    ("name", "given", "found"),
    [
        ("wrist", ["front", "wrist"], "wrist"),
        ("wrist", ["observation/wrist", "observation/front"], "observation/wrist"),
        ("wrist", ["observation.images.wrist"], "observation.images.wrist"),
        ("wrist", ["observation/wrist_image", "observation/image"], "observation/wrist_image"),
        ("wrist_cam", ["cam_wrist", "cam_high"], "cam_wrist"),
        ("base_0_rgb", ["base"], "base"),
        ("wrist", ["left/wrist", "right/wrist"], None),  # two of them
        ("wrist", ["wrist_left"], None),  # another camera
        ("image", ["camera"], None),  # nothing remains but decoration
    ],
)
def test_a_name_is_found_whole_as_the_end_of_a_path_or_without_decoration(
    name: str, given: list[str], found: str | None
) -> None:
    assert find_name(name, given) == found


@pytest.mark.parametrize("given", [["front", "wrist"], ["wrist", "front"]])
def test_the_order_of_the_given_images_does_not_matter(given: list[str]) -> None:
    found = match_cameras(("front", "wrist"), given, {}, "")
    assert found == {"front": "front", "wrist": "wrist"}


def test_only_single_images_are_paired_without_a_name(capsys: Any) -> None:
    assert match_cameras(("front",), ["rendered"], {}, "") == {"front": "rendered"}
    assert "camera 'front' of the policy gets the only image, 'rendered'" in capsys.readouterr().err
    for cameras, given in ((("front",), ["a", "b"]), (("front", "wrist"), ["a", "wrist"])):
        with pytest.raises(ValueError, match=r"no image for camera 'front'.*use front=NAME"):
            match_cameras(cameras, given, {}, "use {camera}=NAME")
    with pytest.raises(ValueError, match=r"'front' \(mapped to 'b'\); the policy has front, the o"):
        match_cameras(("front",), ["a"], {"front": "b"}, "")
    with pytest.raises(ValueError, match=r"'wrist' .*of its own .camera 'front' has 'a'"):
        match_cameras(("front", "wrist"), ["a"], {"front": "a", "wrist": "a"}, "")


def test_nested_fields_have_paths_and_the_state_is_joined_in_order() -> None:
    fields = flatten({"pixels": {"top": np.zeros((9, 9, 3))}, "arm": {"q": [1, 2]}, "grip": 0.5})
    assert list(fields) == ["pixels/top", "arm/q", "grip"]
    assert joined_state(fields, ["grip", "q"], "").tolist() == [0.5, 1, 2]
    for names, message in ((["x"], "no 'x' for the state; .* arm/q"), (["top/y"], "no 'top/y'")):
        with pytest.raises(ValueError, match=message):
            joined_state(fields, names, "")
    with pytest.raises(ValueError, match="NaN"):
        joined_state({"q": [np.nan]}, ["q"], "")
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="more than 16 levels"):
        flatten(deep)


def test_tables_of_numbers_are_no_images() -> None:
    fields = {
        "state": np.zeros((1, 7)),
        "keypoints": np.zeros((20, 2)),
        "grey": np.zeros((20, 20)),
        "front": np.zeros((4, 4, 3)),
        "one": np.zeros((1, 4, 4, 3)),
        "text": "front",
    }
    assert image_fields(fields) == ["grey", "front", "one"]
