"""Saved policies: damaged and incomplete folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY_POLICY
from policies import make_policy
from safetensors.torch import load_file, save_file

from vla.errors import DataError
from vla.policies.checkpoint import load_policy, save_policy


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


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("policy.yaml", ("name: vla", "name: [vla"), "policy.yaml, line 2.*: not valid YAML"),
        ("policy.yaml", ("name: vla", "nmae: vla"), "policy.yaml: policy.name: no policy comp"),
        (
            "policy.yaml",
            ("n_layer:", "n_layr: 3\n    n_layer:"),
            "n_layr: gpt2 has no such .*'n_layer'",
        ),
        ("policy.yaml", ("vision:", "vison: 1\nvision:"), "policy.yaml: policy.vison: unknown"),
        ("policy.yaml", ("name: token", "name: tokn"), "policy.yaml: policy.head.name: no head"),
        ("robot_spec.json", ("{", "["), "robot_spec.json: "),
        ("robot_spec.json", ('"robots"', '"robot"'), "expected the key robots"),
        ("robot_spec.json", ('"horizon": 1', '"horizon": "1"'), "robots.robot.horizon: expected i"),
        ("robot_spec.json", ('"cameras"', '"camera"'), "robots.robot.camera: unknown key; did you"),
        ("robot_spec.json", ('"rate_hz"', '"rate"'), "robots.robot.action_space.rate: unknown key"),
    ],
)
def test_a_malformed_file_is_one_line_with_file_and_key(
    folder: Path, file: str, change: tuple[str, str], message: str
) -> None:
    text = (folder / file).read_text(encoding="utf-8")
    assert change[0] in text
    (folder / file).write_text(text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as failed:
        load_policy(folder, "cpu")
    assert str(folder / file) in str(failed.value)


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{folder}/tokenizer"):
        load_policy(folder, "cpu")
