"""RobotSpec: validation of ``robot_spec.json``, and the text that ``print`` shows."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from vla.errors import ConfigError
from vla.policies.spec import RobotSpec
from vla.types import ActionSpace

ARM = ActionSpace(("x", "grip"), ("m", ""), (-0.5, 0.0), (0.5, 1.0), ("grip",), rate_hz=20.0)
COLUMNS = {"mean": [0.01, 0.5], "std": [0.2, 0.5], "q01": [-0.4, 0.0], "q99": [0.4, 1.0]}


def plain() -> dict[str, Any]:
    spec = RobotSpec(
        ARM,
        ("front", "wrist"),
        (96, 128),
        "pad",
        horizon=4,
        statistics={"actions": COLUMNS, "state": {"mean": [0.0] * 3}},
        state_dim=3,
        relative=(2, -1),
    )
    return json.loads(json.dumps(spec.to_dict()))


def test_a_spec_survives_json_and_old_files_get_defaults() -> None:
    spec = RobotSpec.from_dict(plain())
    assert spec.to_dict() == plain() and spec.image_size == (96, 128) and spec.action_space == ARM
    old = plain()
    for key in ("image_fit", "relative", "state_dim"):
        del old[key]
    spec = RobotSpec.from_dict(old)
    assert (spec.image_fit, spec.relative, spec.state_dim) == ("stretch", (), 0)


def test_the_text_has_inputs_units_bounds_and_statistics() -> None:
    lines = str(RobotSpec.from_dict(plain())).splitlines()
    text = "\n".join(lines)
    for part in (
        "front, wrist",
        "128 x 96 px, padded with black",
        "3 numbers",
        "2 dimensions at 20 Hz, 4 steps",
    ):
        assert part in text
    assert lines[-2].split() == [
        "x",
        "m",
        "-0.5",
        "0.5",
        "0.01",
        "0.2",
        "-0.4",
        "0.4",
        "relative",
        "to",
        "state",
        "2",
    ]
    assert lines[-1].split() == ["grip", "-", "0", "1", "0.5", "0.5", "0", "1", "binary"]
    many = ActionSpace(tuple(f"j{k}" for k in range(60)), ("",) * 60, (-1.0,) * 60, (1.0,) * 60)
    text = str(RobotSpec(many, ("front",), (0, 0)))
    assert len(text.splitlines()) < 40 and "36 further dimensions" in text and "any size" in text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("cameras", None, "f: r.cameras: required, but missing"),
        ("camera", ["front"], "f: r.camera: unknown key; did you mean 'cameras'"),
        ("cameras", ["front", "front"], "f: r.cameras: the names front, front are not unique"),
        ("horizon", "4", "f: r.horizon: expected int, got '4'"),
        ("horizon", 0, "f: r.horizon: expected at least 1, got 0"),
        ("image_size", [64], "f: r.image_size: expected 2 values"),
        ("image_size", [64, 10**9], "f: r.image_size: expected 0 to 4096 px"),
        ("image_fit", "squash", "f: r.image_fit: 'squash' is not allowed"),
        ("relative", [0], "f: r.relative: expected 2 numbers, one per action, got 1"),
        ("action_space", [], r"f: r.action_space: expected a mapping, got \[\]"),
        ("action_space.low", None, "f: r.action_space.low: required"),
        ("action_space.low", [0.0], "f: r.action_space: .* the same, non-zero length"),
        ("action_space.rate", 5, "f: r.action_space.rate: unknown key; did you mean 'rate_hz'"),
        ("statistics.actions", 3, "f: r.statistics.actions.mean: expected 2 finite"),
        ("statistics.actions.mean", [0.0], "f: r.statistics.actions.mean: expected 2 finite"),
        ("statistics.actions.std", [0.0, "a"], "f: r.statistics.actions.std: expected 2 finite"),
        ("statistics.state.mean", [0.0] * 4, "f: r.statistics.state.mean: expected 3 finite"),
    ],
)
def test_an_invalid_file_names_the_key(path: str, value: Any, message: str) -> None:
    data = copy.deepcopy(plain())
    *parents, key = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[key]
    else:
        place[key] = value
    with pytest.raises(ConfigError, match=message):
        RobotSpec.from_dict(data, "f: r")
