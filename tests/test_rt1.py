"""RT-1: hears through FiLM that starts as the identity, remembers frames, acts like any policy; and adding an encoder of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import decoder_config
from test_policy import robot_batch, robot_loss
from test_zoo import HEADS, WORDS, learns_acts_and_reloads

from vla.config import build, registered
from vla.contract import Contract
from vla.decoders.tokenizer import train_tokenizer
from vla.policy import VLAPolicy
from vla.saving import save_policy
from vla.schema import Batch, WebBatch
from vla.sim.layouts import LAYOUTS

_BERT = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
RT1 = {
    "name": "rt1", "text": {"name": "sentence", "config": _BERT, "vocab_size": 800}, "model": "efficientnet_lite0", "image_size": 32, "stages": 3,
    "tokens": 4, "width": 32, "layers": 2, "heads": 2,
}  # fmt: skip


def make() -> Any:
    torch.manual_seed(0)
    contracts = {"arm": Contract(LAYOUTS["rt1"], ("top",), (32, 32), history=6)}
    return build("policy", RT1, contracts=contracts, tokenizer=train_tokenizer(WORDS, 800))


def rt1_batch() -> Any:
    batch = replace(robot_batch(2), robot="arm")
    batch.images_BVTCHW = torch.randint(0, 256, (2, 1, 6, 3, 32, 32), dtype=torch.uint8)
    low, high = torch.tensor(LAYOUTS["rt1"].low), torch.tensor(LAYOUTS["rt1"].high)
    batch.actions_KHA = low + torch.rand(4, 1, len(low)) * (high - low)
    return batch


def test_starts_deaf_hears_learns_acts_and_reloads(tmp_path: Path) -> None:
    policy, batch = make().eval(), rt1_batch()
    images, texts = batch.images_BVTCHW, ["pick the banana", "where is the apple"]
    owner = torch.tensor([0, 0])
    same = policy.logits(images, owner, texts)  # FiLM starts as the identity
    assert torch.allclose(same[0], same[1], atol=1e-6) and same.shape == (2, 1, 11, 256)
    policy.train()
    robot_loss(policy, batch).loss_M.mean().backward()
    assert not [n for n, p in policy.named_parameters() if p.requires_grad and p.grad is None]
    assert not any(p.requires_grad for p in policy.text.parameters()) and not policy.text.training
    for film in policy.vision.films:
        torch.nn.init.normal_(film.shift_scale.weight, std=0.5)
    policy.eval()
    heard = policy.logits(images, owner, texts)
    assert not torch.allclose(heard[0], heard[1], atol=1e-4)
    actions = policy.act(images, texts)
    save_policy(policy, RT1, tmp_path / "p")
    assert np.array_equal(VLAPolicy.load(tmp_path / "p").act(images, texts), actions)
    web = WebBatch(torch.zeros(1, 3, 32, 32), ["what is this?"], ["apple"], torch.tensor([0]), torch.tensor([True]), ["web"])
    with pytest.raises(ValueError, match="answers no questions"):
        policy.losses(Batch([batch], web))


def test_the_past_matters() -> None:
    policy, images = make().eval(), rt1_batch().images_BVTCHW
    other = images.clone()
    other[:, :, 0] = 255 - other[:, :, 0]
    owner = torch.arange(2)
    assert not torch.allclose(policy.logits(images, owner, ["pick"] * 2), policy.logits(other, owner, ["pick"] * 2), atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_sentences_about_one_picture_hear_as_if_each_had_its_own(training: bool) -> None:
    policy, images = make().train(training), rt1_batch().images_BVTCHW
    for film in policy.vision.films:
        torch.nn.init.normal_(film.shift_scale.weight, std=0.5)
    texts, owner = ["pick the banana", "where is the apple", "move", "pick"], torch.tensor([1, 0, 1, 0])
    together = policy.logits(images, owner, texts)
    apart = policy.logits(images[owner], torch.arange(4), texts)
    assert torch.allclose(together, apart, atol=1e-4) and not torch.allclose(together[0], together[1], atol=1e-2)


def test_two_threads_add_up_what_sentences_say_of_a_picture_in_one_order() -> None:
    """A picture's gradient is a sum over its sentences; were its order the threads' to choose, no training could be made again."""
    policy, before = make(), torch.get_num_threads()
    for film in policy.vision.films:
        torch.nn.init.normal_(film.shift_scale.weight, std=0.5)
    owner = torch.arange(8).repeat_interleave(5)[torch.randperm(40)]
    images, condition = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.randn(40, 32)
    weight = next(policy.vision.stem.parameters())
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(16):
            tokens = policy.vision(images, condition, owner)
            found.append(torch.autograd.grad((tokens * torch.linspace(-1, 1, tokens.numel()).view_as(tokens)).sum(), weight)[0])
    finally:
        torch.set_num_threads(before)
    assert found[0].abs().max() > 0 and all(torch.equal(found[0], g) for g in found)


NEW_ENCODER = '''
import torch
from torch import nn
from vla.config import register


@register("vision", "patches")
class Patches(nn.Module):
    """Plain linear patches."""

    def __init__(self, size: int = 8, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.cut = nn.Conv2d(3, width, size, size)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.cut(images_BCHW.float() / 255 - 0.5).flatten(2).transpose(1, 2)
'''


def test_a_new_encoder_is_one_short_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vla.registry
    import vla.vision

    assert len(NEW_ENCODER.strip().splitlines()) <= 20
    assert NEW_ENCODER.strip() in (Path(__file__).parent.parent / "README.md").read_text()
    (tmp_path / "patches.py").write_text(NEW_ENCODER)
    monkeypatch.setitem(vla.registry._REGISTRY, "vision", dict(registered("vision")))
    monkeypatch.setattr(vla.vision, "__path__", [*vla.vision.__path__, str(tmp_path)])
    config = {
        "vision": {"name": "patches"},
        "connector": {"name": "mlp"},
        "decoder": decoder_config("llama"),
        "head": HEADS["token"][0],
    }
    learns_acts_and_reloads(config, tmp_path)
