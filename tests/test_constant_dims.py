"""A dimension that never moves comes back as recorded, through every codec, head and policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY
from hypothesis import given
from hypothesis import strategies as st
from policies import HEADS, WORDS, config_id

from vla.config import build
from vla.data.statistics import column_statistics, with_data_bounds
from vla.inference.runner import PolicyRunner
from vla.models.actions.bins import QuantileBins, UniformBins
from vla.models.actions.fast import FastCodec
from vla.models.actions.normalise import Normaliser
from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.execution import Execution
from vla.policies.spec import RobotSpec
from vla.policies.units import to_legal_actions
from vla.types import ActionSpace

STILL = {"zero": 0.0, "third": 1 / 3, "large": -123456.789, "small": 3.3e-9}
OPEN = ActionSpace(
    ("x", *STILL, "grip"),
    ("m",) * 6,
    (-np.inf,) * 5 + (0.0,),
    (np.inf,) * 5 + (1.0,),
    ("grip",),
)
MODES = ("bounds", "quantiles", "min_max", "z_score")


def recorded(rows: int = 64) -> np.ndarray:
    """(rows, 6) float32: x moves, the next four never do, grip is always 1."""
    values = np.zeros((rows, 6), np.float32)
    values[:, 0] = np.sin(np.arange(rows) / 5)
    values[:, 1:5] = np.array(list(STILL.values()), np.float32)
    values[:, 5] = 1.0
    return values


def known(values: np.ndarray, tmp: Path) -> tuple[ActionSpace, dict[str, Any]]:
    np.save(tmp / "rows.npy", values)
    statistics = column_statistics([tmp / "rows.npy"])
    return with_data_bounds(OPEN, statistics), statistics


@pytest.mark.parametrize("mode", MODES)
def test_every_codec_gives_the_recorded_value(mode: Any, tmp_path: Path) -> None:
    values = recorded()
    normal = Normaliser(*known(values, tmp_path), mode)
    chunks = torch.from_numpy(values).reshape(8, 8, 6)
    unit, sizes = normal(chunks), {"action_dim": 6, "horizon": 8}
    for codec in (
        UniformBins(7, **sizes),
        UniformBins(256, **sizes),
        QuantileBins(16, quantiles=normal.quantiles, **sizes),
        FastCodec(128, 4.0, chunks=unit, **sizes),
    ):
        back = normal.inverse(codec.decode(codec.encode(unit, [8] * 8)))
        assert torch.equal(back[..., 1:], chunks[..., 1:])
        assert (back - chunks)[..., 0].abs().max() < 0.5  # x does move


@given(st.floats(-1, 1), st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_whatever_is_predicted_the_recorded_value_comes_back(unit: float, still: float) -> None:
    space = ActionSpace(("a", "b"), ("", ""), (-5.0, -5.0), (5.0, 5.0))
    column = float(f"{np.float32(still):.9g}")  # as statistics are written
    figures = {k: [0.0, column] for k in ("min", "q01", "mean")}
    figures |= {k: [1.0, column] for k in ("max", "q99")} | {"std": [0.5, 0.0]}
    for mode in MODES:
        back = Normaliser(space, figures, mode).inverse(torch.tensor([unit, unit]))
        assert float(back[1]) == np.float32(still)


def test_a_dimension_of_tiny_movement_stays_within_it() -> None:
    """Noise is not scaled up, and a codec's error does not leave the recorded range."""
    space = ActionSpace(("noise",), ("m",), (-1e-7,), (1e-7,))
    figures = {k: [-1e-7] for k in ("min", "q01")} | {k: [1e-7] for k in ("max", "q99")}
    normal, bins = Normaliser(space, figures, "quantiles"), UniformBins(256)
    x = torch.linspace(-1e-7, 1e-7, 9)[:, None]
    assert normal(x).abs().max() < 1e-6
    assert normal.inverse(bins.value(bins.index(normal(x)))).abs().max() <= 1e-7
    assert normal.inverse(torch.ones(1, 1)).abs().max() <= 1.01e-7


def test_a_sample_does_not_hold_a_dimension_that_rests_by_chance() -> None:
    space = ActionSpace(("a",), ("",), (-5.0,), (5.0,))
    figures = {k: [0.25] for k in ("min", "q01", "max", "q99")}
    sampled = Normaliser(space, figures, "min_max", complete=False)
    assert float(sampled.inverse(torch.tensor([0.5]))) == 0.75


def test_relative_actions_keep_a_still_absolute_dimension(tmp_path: Path) -> None:
    space, statistics = known(recorded(), tmp_path)
    spec = RobotSpec(
        space,
        ("top",),
        (8, 8),
        statistics={"actions": statistics},
        state_dim=6,
        relative=(0, 1, 2, 3, 4, -1),
    )
    state = torch.linspace(-1, 1, 6).reshape(1, 1, 6)
    absolute = to_legal_actions(spec, np.full((1, 1, 6), 0.004, np.float32), state)
    assert np.array_equal(absolute[0, 0, 1:], recorded()[0, 1:])
    assert absolute[0, 0, 0] == pytest.approx(-0.996)


@pytest.mark.parametrize("head", [kinds[0] for kinds in HEADS.values()], ids=config_id)
def test_a_saved_policy_gives_the_recorded_value(head: dict[str, Any], tmp_path: Path) -> None:
    values = recorded()
    space, statistics = known(values, tmp_path)
    spec = RobotSpec(space, ("top",), (32, 32), horizon=2, statistics={"actions": statistics})
    torch.manual_seed(0)
    config = TINY_POLICY | {"head": head, "normalise": "quantiles"}
    policy = build(
        "policy",
        config,
        specs={"robot": spec},
        tokenizer=train_tokenizer(WORDS, 800),
        chunks={"robot": torch.from_numpy(values).reshape(-1, 2, 6)},
        words=WORDS,
    )
    save_policy(policy.eval(), config, tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    image = np.full((32, 32, 3), 90, np.uint8)
    expected = np.broadcast_to(values[0, 1:], (2, 5))
    assert np.array_equal(loaded.act(image, "pick the banana")[:, 1:], expected)
    runner = PolicyRunner(loaded.robot(), Execution(temporal_ensemble=0.1))
    for _ in range(3):
        observation = {"images": {"top": image}, "instruction": "pick the banana"}
        assert np.array_equal(runner.act(["k"], [observation])[0, 1:], expected[0])
