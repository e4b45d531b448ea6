"""Saved policies: damaged and incomplete folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY_POLICY
from policies import make_policy
from safetensors.torch import load_file, save_file

from vla.errors import DataError
from vla.policies.checkpoint import load_policy, save_policy, start_from


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_policy(make_policy(), TINY_POLICY, tmp_path / "policy")


def test_a_saved_policy_has_the_same_weights(folder: Path) -> None:
    original = make_policy().state_dict()
    loaded = load_policy(folder, "cpu").state_dict()
    assert loaded.keys() == original.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in original.items())


@pytest.mark.parametrize("name", ["model.safetensors", "policy.yaml", "robot_spec.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: missing; a saved policy has"):
        load_policy(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match=r"model\.safetensors: missing or damaged"):
        load_policy(folder)


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(n for n in weights if n.startswith("connector."))
    del weights[name]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match=rf"do not fit policy.yaml: missing \['{name}'\]"):
        load_policy(folder)


def test_init_from_copies_everything_but_the_head(folder: Path) -> None:
    policy = make_policy({"name": "regression"}, seed=1)
    saved = load_policy(folder, "cpu")
    start_from(policy, folder)
    for part in ("vision", "connector", "decoder"):
        theirs, ours = (getattr(p, part).state_dict() for p in (saved, policy))
        assert all(torch.equal(ours[name], weight) for name, weight in theirs.items()), part
    wider = {"name": "conv", "widths": [8, 24], "blocks": [0, 1], "image_size": 32}
    with pytest.raises(DataError, match=r"\.weight does not fit this policy; init_from needs"):
        start_from(make_policy(vision=wider), folder)
