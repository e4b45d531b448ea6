"""Policies that are saved without the weights of their base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call, here, line
from families import CAUSAL
from policies import HEADS, VISION_ENCODERS, WORDS, build_policy, robot_batch
from safetensors.torch import load_file, save_file

from vla.config import build, check
from vla.errors import ConfigError, DataError
from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.policies.base_weights import PRETRAINED, check_base
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.folder import BASE, WEIGHTS
from vla.training.run import RunConfig, train

__all__ = ["here", "line"]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A policy with adapters of a pretrained language model in ``hub``."""
    tokenizer = train_tokenizer(WORDS, 800)
    part = {"name": "causal", "config": CAUSAL["llama"]}
    model = build("decoder", part, tokenizer=tokenizer)
    model.lm.save_pretrained(tmp_path / "hub")
    tokenizer.save_pretrained(tmp_path / "hub")
    return {
        "name": "vla",
        "vision": VISION_ENCODERS[0],
        "connector": {"name": "mlp"},
        "decoder": {"name": "causal", "model": str(tmp_path / "hub"), "lora": {"rank": 2}},
        "head": HEADS["token"][1],
    }


@pytest.fixture
def saved(config: dict[str, Any], tmp_path: Path) -> Any:
    """A policy with adapters that change its actions, saved in ``p`` without its base."""
    policy = build_policy(config, load_tokenizer(tmp_path / "hub")).eval()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    save_policy(policy, config, tmp_path / "p", PRETRAINED)
    return policy


def actions(policy: Any) -> np.ndarray:
    found: np.ndarray = policy.predict(robot_batch(4, 2).images_BVTCHW, ["pick the banana"] * 4)[0]
    return found


def test_adapters_alone_act_as_the_whole_policy_and_can_be_merged(
    saved: Any, tmp_path: Path, line: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    names = load_file(tmp_path / "p" / WEIGHTS).keys()
    assert any("lora_A" in n for n in names) and any(n.startswith("vision.") for n in names)
    assert not [n for n in names if "base_layer" in n or "embed_tokens" in n]
    assert np.array_equal(actions(load_policy(tmp_path / "p")), actions(saved))
    assert call("merge", tmp_path / "p", tmp_path / "merged", "--verify", "2") == 0
    (tmp_path / "hub").rename(tmp_path / "moved")
    assert np.allclose(actions(load_policy(tmp_path / "merged")), actions(saved), atol=1e-4)
    assert call("inspect", tmp_path / "p") == 0
    assert "without the weights of the models in policy.yaml" in capfd.readouterr().out
    text, base = line("merge", tmp_path / "p", tmp_path / "again"), tmp_path / "p" / BASE
    assert f"{base}: the base is not here: {tmp_path / 'hub'}: no such folder" in text


def test_a_base_that_changed_is_refused(saved: Any, tmp_path: Path) -> None:
    path = tmp_path / "hub" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] += 1
    save_file(weights, path, {"format": "pt"})
    message = rf"{BASE}: the models in policy\.yaml have other weights than when this policy was"
    with pytest.raises(DataError, match=message):
        load_policy(tmp_path / "p")


@pytest.mark.parametrize("change", [{"weights": [1]}, {"policy": None}, {"size": -1}, {"x": 1}])
def test_a_damaged_record_is_refused(saved: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "p" / BASE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"{BASE}: .*; save or copy the policy again"):
        load_policy(tmp_path / "p")


def test_a_policy_that_only_this_machine_can_load_is_not_uploaded(
    saved: Any, tmp_path: Path, line: Callable[..., str]
) -> None:
    text = line("push", tmp_path / "p", "lab/p")
    assert "upload a whole policy, which this writes: vla merge" in text


def test_the_base_of_a_run(config: dict[str, Any], tmp_path: Path) -> None:
    assert check_base(config, None) == PRETRAINED
    random = config | {"decoder": {"name": "causal", "config": CAUSAL["llama"]}}
    with pytest.raises(ConfigError, match="neither init_from nor a pretrained model"):
        check_base(random, None)
    quantized = config | {"decoder": config["decoder"] | {"quantize": "4bit"}}
    with pytest.raises(ConfigError, match="4-bit weights are saved in full precision"):
        check_base(quantized, None)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_run_from_a_saved_policy_saves_what_it_changed(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 2, "val_every": 2}
    first = train(check(tiny_run, RunConfig, ""), progress=False)
    policy = dict(tiny_run["policy"])
    policy["decoder"] = policy["decoder"] | {"lora": {"rank": 2}}
    second = tiny_run | {"policy": policy, "output_dir": str(tmp_path / "second")}
    second |= {"init_from": str(first), "optim": {"frozen": ["vision"], "warmup_steps": 1}}
    whole = train(check(second, RunConfig, ""), progress=False)
    second["train"] = tiny_run["train"] | {"saved_weights": "changed"}
    second["output_dir"] = str(tmp_path / "third")
    small = train(check(second, RunConfig, ""), progress=False)
    names = load_file(small / WEIGHTS).keys()
    assert not [n for n in names if n.startswith("vision.") or "base_layer" in n]
    ours, theirs = (load_policy(p, "cpu").state_dict() for p in (small, whole))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    third = second | {"init_from": str(small), "output_dir": str(tmp_path / "fourth")}
    with pytest.raises(DataError, match=r"has only the weights that differ from its base; .*merge"):
        train(check(third, RunConfig, ""), progress=False)
