"""Check a component in a tiny policy that is built around it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.config import build, registered
from vla.errors import ConfigError
from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.models.heads.base import HeadLoss
from vla.policies.base import BasePolicy
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.spec import RobotSpec
from vla.testing.example import example
from vla.types import ActionSpace, Batch, RobotBatch

SLOTS = ("policy", "vision", "connector", "decoder", "text", "head", "codec")
ACTION_SPACE = ActionSpace(
    ("x", "y", "gripper"), ("m", "m", "closed"), (-0.1, -0.1, 0.0), (0.1, 0.1, 1.0), ("gripper",)
)
INSTRUCTIONS = ("pick the red apple", "pick the banana")
WORDS = Counter({word: 50 for text in INSTRUCTIONS for word in text.split()})
VOCAB_SIZE = 800  # tokens; the smallest tokenizer has 768
SIDE = 32  # px of the images
HORIZON = 2  # steps of an action chunk
_TINY: dict[str, dict[str, Any]] = {
    "vision": {"name": "conv", "widths": [8, 16], "blocks": [1, 1], "image_size": SIDE},
    "connector": {"name": "mlp"},
    "decoder": {
        "name": "causal",
        "vocab_size": VOCAB_SIZE,
        "config": {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2},
    },
    "head": {"name": "token"},
}
_TINY_RT1: dict[str, Any] = {
    "name": "rt1",
    "model": "efficientnet_lite0",
    "image_size": SIDE,
    "stages": 1,
    "tokens": 2,
    "width": 32,
    "layers": 1,
    "heads": 2,
}


def check_component(slot: str, name: str, **options: Any) -> BasePolicy:
    """Check a component in a tiny policy: train, act, save and load it. Returns the policy.

    Two training steps on random data must give finite losses, and finite gradients that reach the
    component. Actions must be inside the action space, and equal after saving and loading.

    Args:
        slot: one of ``SLOTS``.
        name: the registered name.
        options: as in YAML; they are added to the class attribute ``example`` (a dictionary with
            options of a small instance), if the component has one.

    Raises:
        ConfigError: an unknown component or option.
        AssertionError: a check fails; the message says which one.
    """
    if slot not in SLOTS:
        raise ConfigError(f"check_component: no checks for {slot!r}; choices: {', '.join(SLOTS)}")
    config = _policy_around(slot, example(slot, name) | options | {"name": name})
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        batch = _random_batch()
        policy = build(
            "policy",
            config,
            specs={"robot": _robot_spec()},
            tokenizer=_tokenizer(config),
            words=WORDS,
            chunks={"robot": batch.robots[0].actions_KHA},
        )
        _check_training(policy, batch, slot)
        policy.eval()
        actions = _act(policy, batch)
        _check_actions(actions)
        save_policy(policy, config, Path(folder) / "policy")
        loaded = _act(load_policy(Path(folder) / "policy", "cpu"), batch)
        difference = np.abs(actions - loaded).max()
        assert difference == 0, f"{slot} {name}: a loaded policy acts differently by {difference}"
    return policy


def _policy_around(slot: str, component: dict[str, Any]) -> dict[str, Any]:
    if slot == "policy":
        small = {"vla": _TINY, "rt1": _TINY_RT1 | {"text": _sentence_encoder()}}
        return small.get(component["name"], {}) | component
    if slot == "text":
        return _TINY_RT1 | {"text": component}
    parts = dict(_TINY)
    if slot == "codec":
        parts["head"] = {"name": "token", "token_assignment": "extra", "codec": component}
    elif slot in parts:
        parts[slot] = component
    else:
        raise ConfigError(f"check_component: cannot check {slot!r}; choose from {', '.join(SLOTS)}")
    if slot == "decoder" and getattr(registered(slot)[component["name"]], "is_vlm", False):
        del parts["vision"], parts["connector"]
    return {"name": "vla", **parts}


def _sentence_encoder() -> dict[str, Any]:
    """A small sentence encoder."""
    return {"name": "sentence", **example("text", "sentence")}


def _tokenizer(config: Mapping[str, Any]) -> Any:
    language = config.get("decoder") or config.get("text") or {}
    pretrained = language.get("model")
    return load_tokenizer(pretrained) if pretrained else train_tokenizer(WORDS, VOCAB_SIZE)


def _robot_spec() -> RobotSpec:
    low, high = np.array(ACTION_SPACE.low), np.array(ACTION_SPACE.high)
    statistics = {
        "min": low.tolist(),
        "q01": low.tolist(),
        "q99": high.tolist(),
        "max": high.tolist(),
        "mean": ((low + high) / 2).tolist(),
        "std": ((high - low) / 4).tolist(),
        "quantiles": np.linspace(low, high, 257).tolist(),
    }
    return RobotSpec(
        ACTION_SPACE, ("top",), (SIDE, SIDE), horizon=HORIZON, statistics={"actions": statistics}
    )


def _random_batch(rows: int = 2) -> Batch:
    """Random images, each with two instructions, plans and action chunks."""
    texts = len(INSTRUCTIONS) * rows
    low, high = torch.tensor(ACTION_SPACE.low), torch.tensor(ACTION_SPACE.high)
    actions_KHA = low + torch.rand(texts, HORIZON, ACTION_SPACE.dim) * (high - low)
    binary = torch.tensor([n in ACTION_SPACE.binary for n in ACTION_SPACE.names])
    part = RobotBatch(
        robot="robot",
        images_BVTCHW=torch.randint(0, 256, (rows, 1, 1, 3, SIDE, SIDE), dtype=torch.uint8),
        instructions=list(INSTRUCTIONS) * rows,
        plans=["apple 12 40", "banana 3 99"] * rows,
        actions_KHA=torch.where(binary, actions_KHA.round(), actions_KHA),
        mask_KH=torch.ones(texts, HORIZON, dtype=torch.bool),
        image_index_K=torch.arange(rows).repeat_interleave(len(INSTRUCTIONS)),
        sources=["robot"] * rows,
    )
    return Batch([part])


def _check_training(policy: BasePolicy, batch: Batch, slot: str, steps: int = 2) -> None:
    policy.train()
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-3)
    component: Any = {"head": getattr(policy, "heads", None), "policy": policy}.get(slot)
    component = getattr(policy, slot, None) if component is None else component
    for out in policy.losses(batch).robots:
        right = isinstance(out, HeadLoss) and out.loss_M.ndim == out.text_M.ndim == 1
        assert right and len(out.loss_M) == len(out.text_M), (
            "loss must return HeadLoss with loss_M and text_M of one dimension and equal length"
        )
    for step in range(steps):
        loss = policy.training_step(batch, step)
        assert bool(loss.isfinite()), f"step {step}: the loss is {loss.item()}"
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for key, parameter in policy.named_parameters():
            if parameter.grad is not None:
                assert bool(parameter.grad.isfinite().all()), f"step {step}: gradient of {key}"
        if isinstance(component, torch.nn.Module):
            learning = [p for p in component.parameters() if p.requires_grad]
            reached = any(p.grad is not None for p in learning)
            assert reached or not learning, f"no gradient reaches the {slot}"
        optimizer.step()


def _act(policy: BasePolicy, batch: Batch) -> np.ndarray:
    torch.manual_seed(0)  # some heads start from noise
    images = batch.robots[0].images_BVTCHW
    return policy.predict(images, INSTRUCTIONS[:1] * len(images))[0]


def _check_actions(actions_BHA: np.ndarray) -> None:
    low, high = np.array(ACTION_SPACE.low), np.array(ACTION_SPACE.high)
    assert actions_BHA.shape[1:] == (HORIZON, ACTION_SPACE.dim), f"actions {actions_BHA.shape}"
    inside = (actions_BHA >= low - 1e-6).all() and (actions_BHA <= high + 1e-6).all()
    assert inside, f"actions outside of the action space: {actions_BHA}"
    gripper = actions_BHA[..., ACTION_SPACE.names.index("gripper")]
    assert np.isin(gripper, (0.0, 1.0)).all(), f"binary action is neither 0 nor 1: {gripper}"
