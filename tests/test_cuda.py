"""On a GPU: the losses, actions and successes of the CPU; bf16 from the same YAML; kill and resume; four bits. Skipped where there is none."""

from __future__ import annotations

import copy
import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY
from families import VLM, decoder_config, make_vlm
from test_policy import robot_batch, robot_loss
from test_rt1 import make as make_rt1
from test_rt1 import rt1_batch
from test_train import GOLDEN, losses, stopped_and_continued
from test_zoo import EYES, HEADS, WORDS, four_bits, make, name

from vla.config import check
from vla.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.evaluate import evaluate
from vla.module import PolicyModule
from vla.report import default_environment
from vla.saving import save_policy
from vla.schema import Batch
from vla.train import RunConfig, train
from vla.zoo import measure

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("default"),
]


def agrees(policy: Any, batch: Any, robot: str, words: bool) -> None:
    """Losses, gradients and actions of a policy in float32, here and there."""
    found, start = [], copy.deepcopy(policy.state_dict())
    for device in ("cpu", "cuda"):
        policy.load_state_dict(start)  # running means move in training
        policy.to(device).train()
        policy.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        loss = robot_loss(policy, Batch([batch]).to(device).robots[0]).loss_M
        loss.mean().backward()
        gradient = {n: p.grad.cpu() for n, p in policy.named_parameters() if p.grad is not None}
        policy.eval()
        torch.manual_seed(0)
        found.append((loss.detach().cpu(), gradient, policy.act(batch.images_BVTCHW, ["pick the banana"] * 2, robot)))
    (loss, gradient, actions), (loss_gpu, gradient_gpu, actions_gpu) = found
    assert loss_gpu.shape == loss.shape and actions_gpu.shape == actions.shape and gradient_gpu.keys() == gradient.keys()
    if words:  # what draws noise draws other noise on another device
        assert torch.allclose(loss_gpu, loss, rtol=5e-3, atol=5e-3)
        assert np.allclose(actions_gpu, actions, atol=1e-3)
    assert all(bool(torch.isfinite(g).all()) for g in gradient_gpu.values())


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma2", "t5"])
@pytest.mark.parametrize("head", [h for hs in HEADS.values() for h in hs], ids=name)
def test_every_head_behind_every_kind_of_decoder(head: dict[str, Any], family: str) -> None:
    config = {"vision": EYES[0], "connector": {"name": "mlp"}, "decoder": decoder_config(family), "head": head}
    agrees(make(config), robot_batch(2, 2), "robot", head["name"] not in ("flow", "planned"))


@pytest.mark.parametrize("family", VLM)
def test_whole_models(family: str, tmp_path: Path) -> None:
    folder = make_vlm(family, tmp_path / "hub", train_tokenizer(WORDS, 800))
    config = {"decoder": {"name": "vlm", "model": folder}, "head": HEADS["token"][0]}
    agrees(make(config, load_tokenizer(folder)), robot_batch(2, 2), "robot", True)


def test_rt1() -> None:
    agrees(make_rt1(), rt1_batch(), "arm", True)


def on_gpu(run: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The configuration with nothing changed but where and how it is computed."""
    return run | {"train": run["train"] | {"accelerator": "auto"} | changes}


@pytest.mark.parametrize(("precision", "off"), [("32-true", 5e-3), ("bf16-mixed", 3e-2)])
def test_training_follows_the_cpus_losses(tiny_run: dict[str, Any], precision: str, off: float) -> None:
    saved = train(check(on_gpu(tiny_run, steps=10, precision=precision, rollouts=1), RunConfig, ""), progress=False)
    golden = {int(step): v for step, v in json.loads(GOLDEN.read_text()).items()}
    measured = {step: float(v) for step, v in losses(saved.parent).items()}
    assert measured == pytest.approx(golden, rel=off), f"measured {json.dumps(measured)}"
    used = [float(v) for v in losses(saved.parent, "flop_utilisation").values()]
    assert used and all(0 < u < 1 for u in used)
    policy = PolicyModule.load(saved)
    assert policy.device.type == "cuda" and {p.dtype for p in policy.parameters()} == {torch.float32}
    images = torch.randint(0, 256, (2, 1, 1, 3, 32, 32), dtype=torch.uint8)
    assert np.allclose(policy.act(images, ["pick"] * 2), PolicyModule.load(saved, "cpu").act(images, ["pick"] * 2), atol=1e-3)


def test_a_stopped_run_continues_on_the_same_curve(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    (whole, _), (torn, _) = stopped_and_continued(on_gpu(tiny_run, precision="bf16-mixed"), tmp_path, signal.SIGTERM)
    assert len(whole) == 60 and torn.keys() == whole.keys()
    assert [float(v) for v in torn.values()] == pytest.approx([float(v) for v in whole.values()], rel=1e-3)


@pytest.mark.parametrize("cell", ["seen", "symbol"])
def test_a_real_policy_wins_the_same_episodes(cell: str) -> None:
    """The committed policy of experiments/emergent against its committed episodes, which a CPU drove."""
    home, recipe = REPOSITORY / "experiments" / "emergent", "cofinetuned_weighted4_long"
    policy = PolicyModule.load(home / recipe).robot("robot")
    env, _ = default_environment(policy.contract)
    with (home / "episodes.csv").open(newline="") as file:
        known = {int(r["seed"]): r["success"] == "1" for r in csv.DictReader(file) if r["recipe"] == recipe and r["cell"] == cell}
    results, _ = evaluate(policy, "vla/Tabletop-v0", env, 50, [cell], progress=False)
    assert sum(known[r.seed] == r.success for r in results) >= 48  # a near tie may fall the other way


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_measuring(precision: str, tiny_run: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    row = measure(str(path), [f"train.precision={precision}"], 2, "auto")
    assert row["device"] == torch.cuda.get_device_name() and 0 < row["step_s"] < 5 and 0 < row["act_s"] < 5


def test_four_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    config = four_bits(tmp_path)
    policy, batch = make(config, load_tokenizer(tmp_path / "hub")).to("cuda"), robot_batch(2, 2)
    assert any(type(p).__name__ == "Params4bit" for p in policy.parameters())
    with torch.autocast("cuda", torch.bfloat16):
        robot_loss(policy, Batch([batch]).to("cuda").robots[0]).loss_M.mean().backward()
    assert all("lora_" in n for n, p in policy.decoder.named_parameters() if p.requires_grad)
    before = policy.eval().act(batch.images_BVTCHW, ["pick"] * 2)
    save_policy(policy, {"name": "vla", **config}, tmp_path / "p")
    again = PolicyModule.load(tmp_path / "p")
    assert not any(type(p).__name__ == "Params4bit" for p in again.parameters())
    assert np.allclose(again.act(batch.images_BVTCHW, ["pick"] * 2), before, atol=2e-2)  # 4-bit layers compute in bf16 there
