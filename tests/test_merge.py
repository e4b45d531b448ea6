"""Adapters become part of the weights: the same actions, in an ordinary policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call, here, line
from conftest import TINY_POLICY
from policies import HEADS, VISION, build_policy, robot_batch

import vla.inference.merge
import vla.models.lora
from vla.config import read_yaml
from vla.policies.checkpoint import load_policy, save_policy

__all__ = ["here", "line"]
_GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256}
_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "tie_word_embeddings": False,
}
LORA = {"rank": 2, "alpha": 8.0, "dropout": 0.1}
# Decoder and head: linear layers or Conv1D, tied or separate embeddings, with action tokens.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "conv1d": (_GPT2, HEADS["regression"][0]),
    "tied action tokens": (_GPT2, {"name": "token", "token_assignment": "extra"}),
    "separate action tokens": (_LLAMA, {"name": "token", "token_assignment": "overwrite"}),
}


def adapted(folder: Path, kind: str, vision: bool = False, **lora: Any) -> Any:
    """A saved policy with adapters of the decoder, or of vision, too, that change its actions."""
    decoder, head = KINDS[kind]
    config = {
        "vision": VISION["timm"][0] | {"lora": LORA} if vision else TINY_POLICY["vision"],
        "connector": {"name": "mlp"},
        "decoder": {"name": "causal", "vocab_size": 800, "config": decoder, "lora": LORA | lora},
        "head": head,
    }
    policy = build_policy(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name or "trainable_embeddings" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    save_policy(policy, {"name": "vla", **config}, folder)
    return policy.eval()


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] * (k != "separate action tokens")) for k in KINDS],
)
def test_a_merged_policy_acts_as_before_and_has_no_adapters(
    kind: str, tmp_path: Path, here: None, capfd: pytest.CaptureFixture[str]
) -> None:
    before = adapted(tmp_path / "p", kind, vision=kind == "conv1d")
    merge = ("export", tmp_path / "p", tmp_path / "merged", "--format", "policy", "--verify", "3")
    assert call(*merge) == 0
    out = capfd.readouterr().out
    assert "merged the adapters of" in out and "3 observations" in out
    after = load_policy(tmp_path / "merged")
    assert not [n for n in after.state_dict() if "lora_" in n or "base_layer" in n]
    assert after.decoder.trainable_embeddings is None and not after.decoder.frozen
    config = read_yaml(tmp_path / "merged" / "policy.yaml")
    assert config["decoder"]["lora"] is None and config["vision"].get("lora") is None
    assert all(p.requires_grad for n, p in after.named_parameters() if n.startswith("decoder."))
    batch = robot_batch(4, 2)
    texts = ["pick the banana"] * 4
    actions = [p.predict(batch.images_BVTCHW, texts)[0] for p in (before, after)]
    assert np.abs(actions[0] - actions[1]).max() < 1e-4
    unchanged = {n: p for n, p in before.named_parameters() if n.startswith("connector.")}
    assert all(torch.equal(after.state_dict()[n], p) for n, p in unchanged.items())


def test_a_wrong_merge_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Callable[..., str]
) -> None:
    adapted(tmp_path / "p", "conv1d", targets=["c_proj"])

    def forget(model: Any) -> int:
        """Take the adapters out without adding them to the weights."""
        layers = [(n, m) for n, m in model.named_modules() if hasattr(m, "lora_A")]
        for name, layer in layers:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer.get_base_layer())
        return len(layers)

    monkeypatch.setattr(vla.inference.merge, "merge_adapters", forget)
    merge = ("export", tmp_path / "p", tmp_path / "merged", "--format", "policy", "--verify", "2")
    text = line(*merge)
    assert "not written: the exported policy acts differently" in text
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["p"]


def test_mistakes_are_one_line(tmp_path: Path, line: Callable[..., str]) -> None:
    adapted(tmp_path / "p", "conv1d")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    args = ("--format", "policy")
    assert "has no policy.yaml" in line("export", tmp_path / "p", tmp_path / "mine", *args)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert "is the saved policy itself" in line("export", tmp_path / "p", tmp_path / "p", *args)
    assert "needs --format onnx" in line(
        "export", tmp_path / "p", tmp_path / "m", *args, "--quantize", "int8"
    )


def test_4_bit_weights_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    layer = torch.nn.Sequential(torch.nn.Linear(4, 4))
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["0"]), layer)
    packed = torch.nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    layer[0].get_base_layer().weight = packed
    with pytest.raises(ValueError, match="save the policy first"):
        vla.models.lora.merge_adapters(layer)
