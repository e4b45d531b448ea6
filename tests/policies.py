"""Tiny policies, batches and configurations that several test modules share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import TINY_POLICY
from families import CAUSAL

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.config import build
from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.spec import RobotSpec
from vla.policies.vla import VLAPolicy
from vla.types import Batch, RobotBatch

# How often each word occurs in the corpus on which the test tokenizers are trained.
WORDS = Counter(
    dict.fromkeys(
        [
            "pick",
            "up",
            "the",
            "red",
            "apple",
            "banana",
            "where",
            "is",
            "what",
            "kind",
            "of",
            "thing",
            "fruit",
        ],
        50,
    )
)
_VIT = {"name": "timm", "model": "vit_tiny_patch16_224", "image_size": 32}
VISION: dict[str, list[dict[str, Any]]] = {
    "conv": [{"name": "conv", "widths": [8, 16], "blocks": [1, 1], "image_size": 32}],
    "timm": [
        _VIT | {"options": {"depth": 1, "patch_size": 8}},
        {
            "name": "timm",
            "model": "vit_base_patch16_siglip_224",
            "image_size": 32,
            "options": {"depth": 1, "embed_dim": 32, "num_heads": 2},
        },
        {
            "name": "timm",
            "model": "vit_small_patch14_dinov2",
            "image_size": 28,
            "options": {"depth": 1, "embed_dim": 32, "num_heads": 2},
        },
        {
            "name": "timm",
            "model": "vit_base_patch16_clip_224",
            "image_size": 32,
            "options": {"depth": 1, "embed_dim": 32, "num_heads": 2},
        },
        {
            "name": "timm",
            "model": "convnext_atto",
            "image_size": 32,
            "layer": 2,
            "options": {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16]},
        },
        {"name": "timm", "model": "efficientnet_lite0", "image_size": 32, "layer": 1},
        {"name": "timm", "model": "resnet10t", "image_size": 32, "layer": 2},
    ],
    "fused": [
        {
            "name": "fused",
            "encoders": [
                _VIT | {"options": {"depth": 1}},
                {"name": "conv", "widths": [8, 16], "blocks": [0, 0], "image_size": 32},
            ],
        }
    ],
}
HEADS: dict[str, list[dict[str, Any]]] = {
    "token": [
        {"name": "token"},
        {"name": "token", "token_assignment": "overwrite", "codec": {"name": "quantile"}},
        {
            "name": "token",
            "token_assignment": "extra",
            "codec": {"name": "fast", "vocab_size": 128},
        },
    ],
    "regression": [{"name": "regression", "loss": loss} for loss in ("l1", "mse", "huber")],
    "mixture": [{"name": "mixture", "modes": 3}],
    "flow": [{"name": "flow", "steps": 3, "width": 32}],
    "classification": [{"name": "classification"}],
    "chain_of_thought": [
        {"name": "chain_of_thought", "action": {"name": "flow", "steps": 3, "width": 32}}
    ],
}
VISION_ENCODERS = [config for configs in VISION.values() for config in configs]
ACTION_HEADS = [config for configs in HEADS.values() for config in configs]


def make_policy(
    head: dict[str, Any] | None = None,
    horizon: int = 1,
    seed: int = 0,
    cameras: tuple[str, ...] = ("top",),
    **parts: Any,
) -> VLAPolicy:
    """A tiny policy in evaluation mode; ``parts`` replace slots of ``TINY_POLICY``."""
    torch.manual_seed(seed)
    config = TINY_POLICY | {"head": head or {"name": "token"}} | parts
    specs = {"robot": RobotSpec(LAYOUTS["rt2"], cameras, (32, 32), horizon=horizon)}
    return build("policy", config, specs=specs, tokenizer=train_tokenizer(WORDS, 800)).eval()


def robot_batch(rows: int = 3, horizon: int = 1, seed: int = 0) -> RobotBatch:
    """Random images, two instructions per image, and legal random actions."""
    g = torch.Generator().manual_seed(seed)
    image_index = torch.arange(rows).repeat_interleave(2)
    low, high = torch.tensor(LAYOUTS["rt2"].low), torch.tensor(LAYOUTS["rt2"].high)
    actions = low + torch.rand((2 * rows, horizon, 8), generator=g) * (high - low)
    binary = torch.tensor([n in LAYOUTS["rt2"].binary for n in LAYOUTS["rt2"].names])
    actions = torch.where(binary, actions.round(), actions)
    return RobotBatch(
        robot="robot",
        images_BVTCHW=torch.randint(
            0, 256, (rows, 1, 1, 3, 32, 32), generator=g, dtype=torch.uint8
        ),
        instructions=["pick up the red apple", "pick the banana"] * rows,
        plans=["apple 12 40", "banana 3 99"] * rows,
        actions_KHA=actions,
        mask_KH=torch.ones(2 * rows, horizon, dtype=torch.bool),
        image_index_K=image_index,
        sources=["robot"] * rows,
    )


def robot_loss(policy: Any, *parts: RobotBatch) -> Any:
    """The HeadLoss of the first robot."""
    return policy.losses(Batch(list(parts))).robots[0]


def spec(horizon: int = 1, cameras: tuple[str, ...] = ("top",)) -> RobotSpec:
    """A robot with uniform action quantiles."""
    space = LAYOUTS["rt2"]
    grid = np.linspace(np.array(space.low), np.array(space.high), 257).tolist()
    return RobotSpec(
        space, cameras, (32, 32), horizon=horizon, statistics={"actions": {"quantiles": grid}}
    )


def build_policy(config: dict[str, Any], tokenizer: Any = None, **wired: Any) -> VLAPolicy:
    """A policy from its configuration, with everything that components can need."""
    torch.manual_seed(0)
    wired = {
        "specs": {"robot": spec(2)},
        "chunks": {"robot": robot_batch(20, 2).actions_KHA},
        "words": WORDS,
    } | wired
    return build(
        "policy",
        {"name": "vla", **config},
        tokenizer=tokenizer or train_tokenizer(WORDS, 800),
        **wired,
    )


def check_policy(config: dict[str, Any], folder: Path, tokenizer: Any = None) -> None:
    """Train one step, act, save and load; every trainable parameter needs a finite gradient."""
    policy, batch = build_policy(config, tokenizer), robot_batch(2, 2)
    policy.train()
    out = robot_loss(policy, batch)
    out.loss_M.mean().backward()
    assert bool(torch.isfinite(out.loss_M).all())
    # Heads with queries do not use the output layer.
    embeddings = {id(policy.decoder.lm.get_input_embeddings().weight)}
    output = policy.decoder.lm.get_output_embeddings()
    for key, parameter in policy.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, key
        elif parameter.grad is None:
            unused = id(parameter) in embeddings or (
                output is not None and any(parameter is p for p in output.parameters())
            )
            assert unused and config["head"]["name"] != "token", key
        else:
            assert bool(torch.isfinite(parameter.grad).all()), key
    policy.eval()
    images, texts, space = batch.images_BVTCHW, ["pick the banana"] * 2, policy.spec.action_space
    actions = policy.predict(images, texts)[0]
    assert actions.shape == (2, 2, 8) and np.isfinite(actions).all()
    assert (actions >= np.array(space.low) - 1e-6).all() and (
        actions <= np.array(space.high) + 1e-6
    ).all()
    save_policy(policy, {"name": "vla", **config}, folder / "p")
    assert np.array_equal(load_policy(folder / "p").predict(images, texts)[0], actions)


def quantized_config(folder: Path) -> dict[str, Any]:
    """A policy with LoRA on 4-bit weights; the language model is written to ``folder/hub``."""
    tokenizer = train_tokenizer(WORDS, 800)
    shape = CAUSAL["llama"] | {
        "hidden_size": 64,
        "intermediate_size": 128,
    }  # 4-bit blocks have 64 weights
    decoder = build("decoder", {"name": "causal", "config": shape}, tokenizer=tokenizer)
    decoder.lm.save_pretrained(folder / "hub")
    tokenizer.save_pretrained(folder / "hub")
    part = {"name": "causal", "model": str(folder / "hub"), "quantize": "4bit", "lora": {"rank": 2}}
    return {
        "vision": VISION_ENCODERS[0],
        "connector": {"name": "mlp"},
        "decoder": part,
        "head": HEADS["regression"][0],
    }


def config_id(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else "-".join(str(v) for v in value.values() if isinstance(v, str))
    )
