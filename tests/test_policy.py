"""Policy: packing is only a speed-up, decoding is legal, saving is whole, actions round-trip."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY

from vla.config import build, registered
from vla.contract import Contract
from vla.data.manifest import DataError
from vla.decoders.packing import pack_texts
from vla.decoders.text import encode, generate, robot_prompt, text_loss
from vla.decoders.tokenizer import train_tokenizer
from vla.policy import VLAPolicy
from vla.saving import save_policy
from vla.schema import Batch
from vla.sim.layouts import LAYOUTS

WORDS = Counter(["pick", "up", "the", "red", "apple", "banana", "where", "is", "what", "kind", "of", "thing", "fruit"] * 50)
DECODERS = {
    "gpt2": TINY_POLICY["decoder"]["config"],
    "llama": {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
}
VISION = {
    "conv": {"name": "conv", "widths": [8, 16], "blocks": [1, 1], "image_size": 32},
    "timm": {"name": "timm", "model": "vit_tiny_patch16_224", "image_size": 32, "options": {"depth": 1, "patch_size": 8}},
}
HEADS: dict[str, dict[str, Any]] = {"token": {"name": "token"}, "regression": {"name": "regression"}}
PLAN = {"name": "token", "plan": True}


def make_policy(
    decoder: str = "gpt2", vision: str = "conv", head: dict[str, Any] | None = None, horizon: int = 1, seed: int = 0
) -> VLAPolicy:
    torch.manual_seed(seed)
    config = policy_config(decoder, vision, head)
    contract = Contract(LAYOUTS["rt2"], ("top",), (32, 32), horizon=horizon)
    return build("policy", config, contract=contract, tokenizer=train_tokenizer(WORDS, 800)).eval()


def policy_config(decoder: str = "gpt2", vision: str = "conv", head: dict[str, Any] | None = None) -> dict[str, Any]:
    return TINY_POLICY | {
        "vision": VISION[vision], "head": head or HEADS["token"],
        "decoder": {"name": "causal", "vocab_size": 800, "config": DECODERS[decoder]},
    }  # fmt: skip


def robot_batch(rows: int = 3, horizon: int = 1, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    owner = torch.arange(rows).repeat_interleave(2)
    low, high = torch.tensor(LAYOUTS["rt2"].low), torch.tensor(LAYOUTS["rt2"].high)
    actions = low + torch.rand((2 * rows, horizon, 8), generator=g) * (high - low)
    return Batch(
        images_BVTCHW=torch.randint(0, 256, (rows, 1, 1, 3, 32, 32), generator=g, dtype=torch.uint8),
        instructions=["pick up the red apple", "pick the banana"] * rows, plans=[""] * (2 * rows), actions_KHA=actions,
        mask_KH=torch.ones(2 * rows, horizon, dtype=torch.bool), owner_K=owner, sources=["robot"] * rows,
    )  # fmt: skip


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("vision", sorted(registered("vision")))
@pytest.mark.parametrize("head", sorted(registered("head")))
def test_every_combination_learns_acts_and_reloads(decoder: str, vision: str, head: str, tmp_path: Path) -> None:
    policy = make_policy(decoder, vision, HEADS[head])
    batch = robot_batch()
    policy.train()
    policy.losses(batch)["robot"].loss_M.mean().backward()
    silent = [
        n for n, p in policy.named_parameters() if p.requires_grad and p.grad is None and "wte" not in n and "embed_tokens" not in n
    ]
    assert not silent
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)
    policy.eval()
    actions = policy.act(batch.images_BVTCHW, ["pick the banana"] * 3)
    space = LAYOUTS["rt2"]
    assert (
        actions.shape == (3, 1, 8)
        and (actions >= np.array(space.low) - 1e-6).all()
        and (actions <= np.array(space.high) + 1e-6).all()
    )
    save_policy(policy, policy_config(decoder, vision, HEADS[head]), tmp_path / "p")
    again = VLAPolicy.load(tmp_path / "p")
    assert np.array_equal(again.act(batch.images_BVTCHW, ["pick the banana"] * 3), actions)


@pytest.mark.parametrize("decoder", DECODERS)
def test_packed_equals_one_by_one(decoder: str) -> None:
    policy = make_policy(decoder)
    torch.manual_seed(1)
    prefix = torch.randn(2, 9, 32)
    tok = policy.decoder.tokenizer
    prompts = [encode(tok, robot_prompt(t)) for t in ("pick up the red apple", "banana", "what kind of thing is the fruit")]
    targets = [encode(tok, " 1 2 3"), encode(tok, " 200 7"), encode(tok, " 9")]
    owner = torch.tensor([0, 1, 0])
    packed = text_loss(policy.decoder, prefix, owner, prompts, targets)
    single = [
        text_loss(policy.decoder, prefix[o : o + 1], torch.tensor([0]), [p], [t]).loss_M
        for o, p, t in zip(owner, prompts, targets, strict=True)
    ]
    assert torch.allclose(packed.loss_M, torch.cat(single), atol=1e-5)


def test_a_text_that_must_not_look_does_not_see_the_picture() -> None:
    policy = make_policy()
    tok = policy.decoder.tokenizer
    args = (torch.tensor([0]), [encode(tok, "Q: what? A:")], [encode(tok, " fruit")])
    a, b = torch.randn(1, 9, 32), torch.randn(1, 9, 32)
    blind = [text_loss(policy.decoder, p, *args, sees_K=torch.tensor([False])).loss_M for p in (a, b)]
    seeing = [text_loss(policy.decoder, p, *args).loss_M for p in (a, b)]
    assert torch.equal(*blind) and not torch.equal(*seeing)


@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_equal_hugging_faces_own_forward(decoder: str) -> None:
    policy = make_policy(decoder)
    ids = torch.tensor([[5, 70, 300, 12]])
    packed = pack_texts([ids[0].tolist()], torch.tensor([0]), 1, 0, 0)
    ours = policy.decoder.logits(policy.decoder(policy.decoder.embed(ids), packed.mask_B1LL, packed.positions_BL))
    theirs = policy.decoder.lm(input_ids=ids, position_ids=packed.positions_BL).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    some = torch.tensor([3, 300])
    hidden = policy.decoder(policy.decoder.embed(ids), packed.mask_B1LL, packed.positions_BL)
    assert torch.allclose(policy.decoder.logits(hidden, some), ours[..., some], atol=1e-6)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("legal", [False, True])
def test_cached_decoding_equals_uncached_and_neighbours_do_not_matter(decoder: str, legal: bool) -> None:
    policy = make_policy(decoder)
    torch.manual_seed(2)
    prefix = torch.randn(2, 9, 32)
    tok = policy.decoder.tokenizer
    prompts = [encode(tok, robot_prompt("pick")), encode(tok, robot_prompt("pick up the red apple banana"))]
    ids = policy.head.vocabulary.ids if legal else None
    cached = generate(policy.decoder, prefix, prompts, 6, ids)
    assert torch.equal(cached, generate(policy.decoder, prefix, prompts, 6, ids, cached=False))
    alone = generate(policy.decoder, prefix[:1], prompts[:1], 6, ids)
    assert torch.equal(cached[:1], alone)
    if legal:
        assert set(cached.flatten().tolist()) <= set(policy.head.vocabulary.ids.tolist())


def test_greedy_decoding_agrees_with_the_training_loss() -> None:
    """What teacher forcing calls the likeliest action is what decoding writes, once the model is sure."""
    policy, batch = make_policy(horizon=2), robot_batch(rows=2, horizon=2)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    policy.train()
    for _ in range(150):
        optimizer.zero_grad()
        out = policy.losses(batch)["robot"]
        out.loss_M.mean().backward()
        optimizer.step()
    assert bool(out.right_M.all())
    policy.eval()
    first = [0, 2]
    decoded = policy.act(batch.images_BVTCHW, [batch.instructions[k] for k in first])
    assert batch.actions_KHA is not None
    half_bin = (np.array(LAYOUTS["rt2"].high) - np.array(LAYOUTS["rt2"].low)) / 256
    assert (np.abs(decoded - batch.actions_KHA[first].numpy()) <= half_bin + 1e-6).all()


def test_damaged_policies_are_refused(tmp_path: Path) -> None:
    policy = make_policy()
    folder = save_policy(policy, policy_config(), tmp_path / "p")
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:100])
    with pytest.raises(DataError, match=r"model\.safetensors: missing or damaged"):
        VLAPolicy.load(folder)
    weights.unlink()
    with pytest.raises(DataError, match=r"model\.safetensors: missing; a saved policy has"):
        VLAPolicy.load(folder)


def test_free_answers_are_text() -> None:
    policy = make_policy()
    answers = policy.answer(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), ["what kind of thing is the fruit?"] * 2, 5)
    assert len(answers) == 2 and answers[0] == answers[1] and isinstance(answers[0], str)


def test_plans_are_learned_written_and_returned() -> None:
    policy, batch = make_policy(head=PLAN), robot_batch(rows=2)
    with pytest.raises(ValueError, match=r"head\.plan=true needs a plan for every step"):
        policy.losses(batch)
    batch.plans = ["12 200", "97 31"] * 2
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    policy.train()
    for _ in range(150):
        optimizer.zero_grad()
        loss = policy.losses(batch)["robot"].loss_M.mean()
        loss.backward()
        optimizer.step()
    policy.eval()
    actions = policy.act(batch.images_BVTCHW, [batch.instructions[0], batch.instructions[3]])
    assert policy.head.last_plans == ["12 200", "97 31"]
    assert batch.actions_KHA is not None
    assert np.abs(actions - batch.actions_KHA[[0, 3]].numpy()).max() <= 1.0 / 128


def test_an_empty_plan_is_no_error() -> None:
    policy, batch = make_policy(head=PLAN), robot_batch(rows=2)
    stop = encode(policy.decoder.tokenizer, " Action:")[0]
    with torch.no_grad():  # the likeliest word is always the stop word
        policy.decoder.logits = lambda hidden, ids=None: (
            torch.nn.functional.one_hot(torch.full(hidden.shape[:-1], stop), len(policy.decoder.tokenizer)).float()
            if ids is None
            else torch.zeros(*hidden.shape[:-1], len(ids))
        )
        assert policy.act(batch.images_BVTCHW, ["pick the banana"] * 2).shape == (2, 1, 8)
    assert policy.head.last_plans == ["", ""]
