"""Training mode: pretrained parts train as configured, frozen parts never, evaluation restores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_POLICY
from policies import WORDS, build_policy, make_policy, robot_batch, robot_loss
from torch import nn

from vla.benchmarks.base import EpisodeResult
from vla.config import check
from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.models.lora import merged_adapters
from vla.policies.vla import VLAPolicy
from vla.training.run import RunConfig, train
from vla.utils.modes import evaluation_mode

CONFIG = TINY_POLICY["decoder"]["config"] | {"resid_pdrop": 0.5}
BATCH_NORM = {
    "name": "timm",
    "model": "resnet10t",
    "image_size": 32,
    "layer": 1,
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny GPT-2 with dropout, and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("gpt2"), train_tokenizer(WORDS, 800)
    fields = {k: v for k, v in CONFIG.items() if k != "model_type"}
    config = AutoConfig.for_model("gpt2", vocab_size=len(tokenizer), **fields)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def in_training(module: nn.Module, kind: type) -> set[bool]:
    return {m.training for m in module.modules() if isinstance(m, kind)}


def policy_with(folder: str, **options: Any) -> Any:
    part = {"name": "causal", "model": folder, **options}
    return build_policy(TINY_POLICY | {"decoder": part}, load_tokenizer(folder))


def noisy(policy: Any) -> bool:
    """True if two losses of the same batch differ, as with dropout."""
    batch = robot_batch(2, 2)
    with torch.no_grad():
        one, two = (robot_loss(policy, batch).loss_M for _ in range(2))
    return not torch.equal(one, two)


def test_a_pretrained_decoder_has_its_dropout_in_training_as_one_from_scratch(
    pretrained: str,
) -> None:
    scratch = build_policy(TINY_POLICY | {"decoder": TINY_POLICY["decoder"] | {"config": CONFIG}})
    policies = [scratch, policy_with(pretrained), policy_with(pretrained, lora={"rank": 2})]
    for policy in policies:
        assert in_training(policy.decoder, nn.Dropout) == {True} and noisy(policy)
        policy.eval()
        assert not noisy(policy)


def test_parts_without_trainable_weights_have_no_dropout_and_keep_batch_statistics(
    pretrained: str,
) -> None:
    policy = policy_with(pretrained, frozen=True)
    policy.train()
    assert in_training(policy.decoder, nn.Dropout) == {False} and not noisy(policy)
    decoder = {"name": "causal", "model": pretrained, "lora": {"rank": 2}}
    config = TINY_POLICY | {"vision": BATCH_NORM, "decoder": decoder}
    policy = build_policy(config, load_tokenizer(pretrained))
    for trainable in (True, False):
        policy.vision.requires_grad_(trainable)
        policy.train()
        assert in_training(policy.vision, nn.modules.batchnorm._BatchNorm) == {trainable}
        assert in_training(policy.decoder, nn.Dropout) == {True}  # beside adapters
    policy.vision.requires_grad_(True)
    for part in policy.vision.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.requires_grad_(False)
    policy.train()
    assert in_training(policy.vision, nn.modules.batchnorm._BatchNorm) == {False}


@pytest.mark.slow
def test_modes_in_a_run_do_not_depend_on_rollouts_or_validation(
    pretrained: str, tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[dict[str, bool]] = []
    step = VLAPolicy.training_step

    def recording(policy: Any, *arguments: Any) -> Any:
        modules = [(n, m) for n, m in policy.named_modules() if not n.startswith("metrics.")]
        seen.append({name: module.training for name, module in modules})
        return step(policy, *arguments)

    def rollout(policy: Any, *arguments: Any, **options: Any) -> Any:
        batch = robot_batch(1)
        policy.predict(batch.images_BVTCHW, batch.instructions[:1])
        return [EpisodeResult("pick", 0, "pick", True, 1)], []

    monkeypatch.setattr(VLAPolicy, "training_step", recording)
    monkeypatch.setattr("vla.training.benchmark_eval.evaluate", rollout)
    monkeypatch.setattr("vla.training.benchmark_eval.animation", lambda *_, **__: b"")
    vision = BATCH_NORM | {"frozen": True}
    decoder = {"name": "causal", "model": pretrained}
    tiny_run["policy"] = TINY_POLICY | {"vision": vision, "decoder": decoder}
    runs = []
    for rollouts in (0, 1):
        options = {"steps": 2, "val_every": 1, "val_windows": 2, "eval": {"episodes": rollouts}}
        tiny_run["train"] = tiny_run["train"] | options
        tiny_run["output_dir"] = str(tmp_path / f"run{rollouts}")
        seen.clear()
        train(check(tiny_run, RunConfig, ""), progress=False)
        runs.append(list(seen))
    first = runs[0][0]
    for modes in runs[0] + runs[1]:
        assert {n: m for n, m in modes.items() if m != first[n]} == {}
    assert not any(mode for name, mode in first.items() if name.startswith("vision.net."))
    assert all(mode for name, mode in first.items() if name.startswith("decoder."))


def test_acting_with_a_policy_in_training_mode_has_no_dropout_and_restores_every_mode() -> None:
    decoder = TINY_POLICY["decoder"] | {"config": CONFIG}
    policy = make_policy({"name": "regression"}, decoder=decoder).train()
    policy.vision.eval()
    before = [m.training for m in policy.modules()]
    image = robot_batch(1).images_BVTCHW[0, 0, 0].permute(1, 2, 0).numpy()
    actions = [policy.act(image, "pick the banana") for _ in range(2)]
    assert (actions[0] == actions[1]).all()
    assert [m.training for m in policy.modules()] == before
    with pytest.raises(RuntimeError), evaluation_mode(policy):
        assert not policy.training
        raise RuntimeError
    assert [m.training for m in policy.modules()] == before


def test_merged_adapters_give_the_same_actions_and_are_taken_out_exactly(pretrained: str) -> None:
    policy = policy_with(pretrained, lora={"rank": 2}).eval()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    batch = robot_batch(2, 2)
    with torch.no_grad():
        apart = robot_loss(policy, batch).loss_M
        with merged_adapters(policy) as count:
            merged = robot_loss(policy, batch).loss_M
        assert count == 8 and torch.allclose(apart, merged, atol=1e-4)
        assert torch.equal(robot_loss(policy, batch).loss_M, apart)
        nn.init.zeros_(next(p for n, p in policy.named_parameters() if "lora_B" in n))
        assert not torch.allclose(robot_loss(policy, batch).loss_M, apart, atol=1e-4)
    after = policy.state_dict()
    assert all(torch.equal(after[n], t) for n, t in before.items() if "lora_B" not in n)
    with merged_adapters(make_policy()) as count:
        assert count == 0
