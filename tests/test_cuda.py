"""On a GPU: losses, actions and rollouts of the CPU; bf16; resume; 4-bit weights."""

from __future__ import annotations

import copy
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY
from families import decoder_config
from policies import (
    ACTION_HEADS,
    HEADS,
    VISION_ENCODERS,
    WORDS,
    build_policy,
    config_id,
    quantized_config,
    robot_batch,
    robot_loss,
)
from rt1_policy import make_rt1, rt1_batch
from training_runs import GOLDEN, losses, stopped_and_continued
from vlm_models import VLM, make_vlm

from vla.config import check
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.policies.checkpoint import load_policy, save_policy
from vla.training.measure import measure
from vla.training.run import RunConfig, train
from vla.types import Batch, RobotBatch

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("default"),
]
Result = tuple[torch.Tensor, dict[str, torch.Tensor], np.ndarray]


def run_once(policy: Any, batch: RobotBatch, device: str) -> Result:
    """Losses, gradients by parameter, and actions in float32."""
    policy.to(device).train()
    policy.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    loss_M = robot_loss(policy, Batch([batch]).to(device).robots[0]).loss_M
    loss_M.mean().backward()
    gradients = {n: p.grad.cpu() for n, p in policy.named_parameters() if p.grad is not None}
    policy.eval()
    torch.manual_seed(0)
    texts = ["pick the banana"] * 2
    actions, _ = policy.predict(batch.images_BVTCHW, texts, batch.robot)
    return loss_M.detach().cpu(), gradients, actions


def compare_devices(policy: Any, batch: RobotBatch, draws_noise: bool = False) -> None:
    """Run on CPU and GPU. Policies that draw noise draw other noise on another device."""
    start = copy.deepcopy(policy.state_dict())
    loss_M, gradients, actions = run_once(policy, batch, "cpu")
    policy.load_state_dict(start)  # running means change in training
    gpu_loss_M, gpu_gradients, gpu_actions = run_once(policy, batch, "cuda")
    assert gpu_loss_M.shape == loss_M.shape and gpu_actions.shape == actions.shape
    assert gpu_gradients.keys() == gradients.keys()
    assert all(bool(torch.isfinite(g).all()) for g in gpu_gradients.values())
    if not draws_noise:
        assert torch.allclose(gpu_loss_M, loss_M, rtol=5e-3, atol=5e-3)
        assert np.allclose(gpu_actions, actions, atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma2", "t5"])
@pytest.mark.parametrize("head", ACTION_HEADS, ids=config_id)
def test_every_head_with_every_kind_of_decoder(head: dict[str, Any], family: str) -> None:
    config = {
        "vision": VISION_ENCODERS[0],
        "connector": {"name": "mlp"},
        "decoder": decoder_config(family),
        "head": head,
    }
    draws_noise = head["name"] in ("flow", "chain_of_thought")
    compare_devices(build_policy(config), robot_batch(2, 2), draws_noise)


@pytest.mark.parametrize("family", VLM)
def test_vision_language_models(family: str, tmp_path: Path) -> None:
    folder = make_vlm(family, tmp_path / "hub", train_tokenizer(WORDS, 800))
    config = {"decoder": {"name": "vlm", "model": folder}, "head": HEADS["token"][0]}
    compare_devices(build_policy(config, load_tokenizer(folder)), robot_batch(2, 2))


def test_rt1() -> None:
    compare_devices(make_rt1(), rt1_batch())


def on_gpu(run: dict[str, Any], precision: str, **changes: Any) -> dict[str, Any]:
    """The same run on a GPU, with changed training options."""
    return run | {"train": run["train"] | changes, "trainer": {"precision": precision}}


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 5e-3), ("bf16-mixed", 3e-2)])
def test_training_has_the_losses_of_the_cpu(
    tiny_run: dict[str, Any], precision: str, tolerance: float
) -> None:
    run = on_gpu(tiny_run, precision, steps=10, eval={"episodes": 1})
    saved = train(check(run, RunConfig, ""), progress=False)
    golden = {int(step): v for step, v in json.loads(GOLDEN.read_text()).items()}
    measured = {step: float(v) for step, v in losses(saved.parent).items()}
    assert measured == pytest.approx(golden, rel=tolerance), f"measured {json.dumps(measured)}"
    utilisation = [float(v) for v in losses(saved.parent, "flop_utilisation").values()]
    assert utilisation and all(0 < u < 1 for u in utilisation)
    policy = load_policy(saved)
    assert policy.device.type == "cuda"
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    images = torch.randint(0, 256, (2, 1, 1, 3, 32, 32), dtype=torch.uint8)
    actions, _ = policy.predict(images, ["pick"] * 2)
    cpu_actions, _ = load_policy(saved, "cpu").predict(images, ["pick"] * 2)
    assert np.allclose(actions, cpu_actions, atol=1e-3)


def test_a_stopped_run_continues_with_the_same_losses(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    run = on_gpu(tiny_run, "bf16-mixed")
    (whole, _), (stopped, _) = stopped_and_continued(run, tmp_path, signal.SIGTERM)
    assert len(whole) == 60 and stopped.keys() == whole.keys()
    expected = [float(v) for v in whole.values()]
    assert [float(v) for v in stopped.values()] == pytest.approx(expected, rel=1e-3)


def test_a_trained_policy_has_the_rollouts_of_the_cpu() -> None:
    """Nearly equal action tokens may differ on a GPU, so one episode of 20 may differ."""
    folder, outcomes = REPOSITORY / "experiments" / "tabletop_seen" / "policy", []
    for device in ("cpu", "cuda"):
        policy = load_policy(folder, device).robot()
        benchmark = open_benchmark(policy.spec.benchmark, policy.spec.cameras)
        tasks = benchmark.default_tasks()[:1]
        results, _ = evaluate(policy, benchmark, tasks, 20, progress=False)
        outcomes.append({r.seed: r.success for r in results})
    cpu, gpu = outcomes
    assert len(cpu) == 20 and sum(gpu[seed] == cpu[seed] for seed in cpu) >= 19


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_policy_is_measured(precision: str, tiny_run: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    row = measure(str(path), [f"trainer.precision={precision}"], 2, "auto")
    assert row["device"] == torch.cuda.get_device_name()
    assert row["step_s"] > 0 and row["act_s"] > 0


def test_quantised_weights_train_adapters_and_are_saved_in_float32(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    config = quantized_config(tmp_path)
    policy = build_policy(config, load_tokenizer(tmp_path / "hub")).to("cuda")
    batch = robot_batch(2, 2)
    assert any(type(p).__name__ == "Params4bit" for p in policy.parameters())
    with torch.autocast("cuda", torch.bfloat16):
        robot_loss(policy, Batch([batch]).to("cuda").robots[0]).loss_M.mean().backward()
    assert all("lora_" in n for n, p in policy.decoder.named_parameters() if p.requires_grad)
    actions, _ = policy.eval().predict(batch.images_BVTCHW, ["pick"] * 2)
    loaded = load_policy(save_policy(policy, {"name": "vla", **config}, tmp_path / "policy"))
    assert not any(type(p).__name__ == "Params4bit" for p in loaded.parameters())
    # 4-bit layers compute in bf16, the loaded ones in float32.
    loaded_actions, _ = loaded.predict(batch.images_BVTCHW, ["pick"] * 2)
    assert np.allclose(loaded_actions, actions, atol=2e-2)
