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
from families import SEQ2SEQ
from policies import HEADS, VISION, WORDS, build_policy, robot_batch
from safetensors.torch import load_file
from vlm_models import make_vlm

import vla.inference.merge
import vla.models.lora
from vla.config import build, read_yaml
from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.policies.base_weights import PRETRAINED
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.folder import WEIGHTS

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
TOKENS = {"name": "token", "token_assignment": "overwrite"}
# Decoder and head: linear layers or Conv1D, tied or separate embeddings, with action tokens; an
# encoder-decoder model and whole vision-language models.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "conv1d": (_GPT2, HEADS["regression"][0]),
    "tied action tokens": (_GPT2, {"name": "token", "token_assignment": "extra"}),
    "separate action tokens": (_LLAMA, TOKENS),
    "t5": (SEQ2SEQ["t5"], TOKENS),
    "t5_v1_1": (SEQ2SEQ["t5_v1_1"], HEADS["regression"][0]),
    "paligemma": ({}, TOKENS),
    "qwen3_vl": ({}, TOKENS),
}
QUICK = ("separate action tokens",)


def decoder_part(kind: str, folder: Path) -> tuple[dict[str, Any], Any]:
    """(section of the decoder, its tokenizer or None); pretrained models are in ``folder``."""
    architecture, tokenizer = KINDS[kind][0], train_tokenizer(WORDS, 800)
    if not architecture:
        model = make_vlm(kind, folder, tokenizer)
        return {"name": "vlm", "model": model}, load_tokenizer(folder)
    name = "seq2seq" if kind.startswith("t5") else "causal"
    part = {"name": name, "vocab_size": 800, "config": architecture}
    if kind != "t5":
        return part, None
    build("decoder", part, tokenizer=tokenizer).lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"name": name, "model": str(folder)}, tokenizer


def adapted(folder: Path, kind: str, vision: bool = False, **lora: Any) -> Any:
    """A saved policy with adapters of the decoder, or of vision, too, that change its actions.

    It is saved without the weights of a pretrained decoder.
    """
    decoder, tokenizer = decoder_part(kind, folder.with_name("hub"))
    config = {"decoder": decoder | {"lora": LORA | lora}, "head": KINDS[kind][1]}
    if decoder["name"] != "vlm":
        encoder = VISION["timm"][0] | {"lora": LORA} if vision else TINY_POLICY["vision"]
        config |= {"vision": encoder, "connector": {"name": "mlp"}}
    policy = build_policy(config, tokenizer)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name or "trainable_embeddings" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    base = PRETRAINED if "model" in decoder else None
    save_policy(policy, {"name": "vla", **config}, folder, base)
    assert (base is None) == any("base_layer" in n for n in load_file(folder / WEIGHTS))
    return policy.eval()


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] * (k not in QUICK)) for k in KINDS],
)
def test_a_merged_policy_acts_as_before_and_has_no_adapters(
    kind: str, tmp_path: Path, here: None, capfd: pytest.CaptureFixture[str]
) -> None:
    before = adapted(tmp_path / "p", kind, vision=kind == "conv1d")
    merge = ("merge", tmp_path / "p", tmp_path / "merged", "--verify", "3")
    assert call(*merge) == 0
    out = capfd.readouterr().out
    assert "merged the adapters of" in out and "3 observations" in out
    after = load_policy(tmp_path / "merged")
    assert not [n for n in after.state_dict() if "lora_" in n or "base_layer" in n]
    assert after.decoder.trainable_embeddings is None and not after.decoder.frozen
    config = read_yaml(tmp_path / "merged" / "policy.yaml")
    assert config["decoder"]["lora"] is None and not (config.get("vision") or {}).get("lora")
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
    merge = ("merge", tmp_path / "p", tmp_path / "merged", "--verify", "2")
    text = line(*merge)
    assert "not written: the exported policy acts differently" in text
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["p"]


def test_mistakes_are_one_line(tmp_path: Path, line: Callable[..., str]) -> None:
    adapted(tmp_path / "p", "conv1d")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert "has no policy.yaml" in line("merge", tmp_path / "p", tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert "is the saved policy itself" in line("merge", tmp_path / "p", tmp_path / "p")


def test_4_bit_weights_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    layer = torch.nn.Sequential(torch.nn.Linear(4, 4))
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["0"]), layer)
    packed = torch.nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    layer[0].get_base_layer().weight = packed
    with pytest.raises(ValueError, match="save the policy first"):
        vla.models.lora.merge_adapters(layer)
