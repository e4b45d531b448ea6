"""Policy: packing is only a speed-up, decoding is legal, saving is whole, actions round-trip."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY

from vla.config import build
from vla.contract import Contract
from vla.data.manifest import DataError
from vla.decoders.text import continuation, robot_prompt
from vla.decoders.tokenizer import train_tokenizer
from vla.heads.planned import _Told, after
from vla.optim import OptimConfig, make_optimizer
from vla.policy import VLAPolicy
from vla.saving import save_policy
from vla.schema import Batch, RobotBatch
from vla.sim.layouts import LAYOUTS

WORDS = Counter(["pick", "up", "the", "red", "apple", "banana", "where", "is", "what", "kind", "of", "thing", "fruit"] * 50)
PLAN = {"name": "token", "plan": True}


def make_policy(
    head: dict[str, Any] | None = None, horizon: int = 1, seed: int = 0, cameras: tuple[str, ...] = ("top",), **parts: Any
) -> VLAPolicy:
    torch.manual_seed(seed)
    config = TINY_POLICY | {"head": head or {"name": "token"}} | parts
    contracts = {"robot": Contract(LAYOUTS["rt2"], cameras, (32, 32), horizon=horizon)}
    return build("policy", config, contracts=contracts, tokenizer=train_tokenizer(WORDS, 800)).eval()


def robot_batch(rows: int = 3, horizon: int = 1, seed: int = 0) -> RobotBatch:
    g = torch.Generator().manual_seed(seed)
    owner = torch.arange(rows).repeat_interleave(2)
    low, high = torch.tensor(LAYOUTS["rt2"].low), torch.tensor(LAYOUTS["rt2"].high)
    actions = low + torch.rand((2 * rows, horizon, 8), generator=g) * (high - low)
    decisions = torch.tensor([n in LAYOUTS["rt2"].binary for n in LAYOUTS["rt2"].names])
    actions = torch.where(decisions, actions.round(), actions)
    return RobotBatch(
        robot="robot", images_BVTCHW=torch.randint(0, 256, (rows, 1, 1, 3, 32, 32), generator=g, dtype=torch.uint8),
        instructions=["pick up the red apple", "pick the banana"] * rows, plans=["apple 12 40", "banana 3 99"] * rows, actions_KHA=actions,
        mask_KH=torch.ones(2 * rows, horizon, dtype=torch.bool), owner_K=owner, sources=["robot"] * rows,
    )  # fmt: skip


def robot_loss(policy: Any, *parts: RobotBatch) -> Any:
    """HeadLoss of the first robot."""
    return policy.losses(Batch(list(parts))).robots[0]


def test_greedy_decoding_agrees_with_the_training_loss() -> None:
    """What teacher forcing calls the likeliest action is what decoding writes, once the model is sure."""
    policy, batch = make_policy(horizon=2), robot_batch(rows=2, horizon=2)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    policy.train()
    for _ in range(150):
        optimizer.zero_grad()
        out = robot_loss(policy, batch)
        out.loss_M.mean().backward()
        optimizer.step()
    assert bool(out.right_M.all())
    policy.eval()
    first = [0, 2]
    decoded = policy.act(batch.images_BVTCHW, [batch.instructions[k] for k in first])
    half_bin = (np.array(LAYOUTS["rt2"].high) - np.array(LAYOUTS["rt2"].low)) / 256
    assert (np.abs(decoded - batch.actions_KHA[first].numpy()) <= half_bin + 1e-6).all()


def test_numbers_behind_a_plan(tmp_path: Path) -> None:
    """The plan is learned as text, and what is written decides the action."""
    config = {"name": "planned", "action": {"name": "regression"}, "plan_tokens": 8}
    policy, batch = make_policy(head=config), robot_batch(rows=2)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    policy.train()
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        out = robot_loss(policy, batch)
        assert len(out.loss_M) == len(out.segment_M) and out.unit_KHA is not None and out.unit_KHA.shape == (4, 1, 8)
        assert sorted(set(out.segment_M.tolist())) == [0, 1, 2, 3]
        out.loss_M.mean().backward()
        optimizer.step()
        losses.append(float(out.loss_M.detach().mean()))
    assert losses[-1] < 0.5 * losses[0]
    policy.eval()
    images, told = batch.images_BVTCHW, [batch.instructions[0], batch.instructions[1]]
    actions, plans = policy.predict(images, told)
    assert plans == ["apple 12 40", "banana 3 99"]
    save_policy(policy, TINY_POLICY | {"head": config}, tmp_path / "p")
    assert np.allclose(VLAPolicy.load(tmp_path / "p").act(images, told), actions, atol=1e-5)
    head = policy.head()
    head.hold_plan = 1000.0
    held, kept = policy.predict(images, told, before=plans[::-1])
    assert kept == plans[::-1] and not np.allclose(held, actions, atol=1e-3)  # and the action is the held plan's
    told_other = head.action.predict(_Told(policy.decoder, plans[::-1]), policy.prefix(images, "robot"), told).unit_BHA
    assert not torch.allclose(told_other, policy.normaliser()(torch.from_numpy(actions)).float(), atol=1e-3)
    with pytest.raises(ValueError, match="needs a plan for every step"):
        robot_loss(policy, replace(batch, plans=["", "a", "b", "c"]))
    with pytest.raises(ValueError, match="writes text itself"):
        make_policy(head={"name": "planned", "action": {"name": "token"}})


@pytest.mark.parametrize("head", [PLAN, {"name": "planned", "action": {"name": "regression"}}], ids=lambda h: h["name"])
def test_words_that_the_robot_never_says_are_not_unlearned(head: dict[str, Any], tmp_path: Path) -> None:
    """Their embeddings get no gradient at all where only the robot's own words compete."""
    batch, pulled = robot_batch(rows=2), {}
    for rivals in ("all", "own"):
        policy = make_policy(head=head | {"rivals": rivals}).train()
        loss = robot_loss(policy, batch).loss_M.mean()
        loss.backward()
        rows = policy.decoder.lm.get_input_embeddings().weight.grad.abs().sum(1)
        pulled[rivals] = [float(rows[continuation(policy.decoder.tokenizer, w)[0]]) for w in (" fruit", " apple")]
    assert min(pulled["all"]) > 0 and pulled["own"][0] == 0 < pulled["own"][1]
    save_policy(policy, TINY_POLICY | {"head": head | {"rivals": "own"}}, tmp_path / "p")
    known = VLAPolicy.load(tmp_path / "p").head().own_words.known_V
    assert torch.equal(known, policy.head().own_words.known_V) and 1 < known.sum() < len(known)
    quiet = policy.eval().head().own_words(([int((~known).nonzero()[0])],))
    assert quiet.sum() == known.sum() + 1 and torch.equal(policy.head().own_words.known_V, known)  # a validation teaches nothing


@pytest.mark.parametrize("parallel", [True, False])
def test_queries_behind_ids_are_read_as_behind_the_same_words(parallel: bool) -> None:
    policy, batch = make_policy(), robot_batch(rows=2)
    prefix, decoder = policy.prefix(batch.images_BVTCHW, "robot"), policy.decoder
    prompts = [robot_prompt(i) for i in batch.instructions]
    ids = [list(continuation(decoder.tokenizer, after(p))) for p in ("apple 12 40", "banana", "pick", "the red apple")]
    queries = torch.randn(4, 3, decoder.width)
    apart = decoder.read(prefix, batch.owner_K, prompts, ids)
    whole = decoder.read(prefix, batch.owner_K, prompts, ids, queries_KQD=queries, parallel=parallel)
    words = [p + decoder.tokenizer.decode(i) for p, i in zip(prompts, ids, strict=True)]
    behind = decoder.read(prefix, batch.owner_K, words, [[]] * 4, queries_KQD=queries, parallel=parallel)
    ends = np.cumsum([len(i) + 4 for i in ids])
    plans, states = [], []
    for end, i in zip(ends, ids, strict=True):
        plans.append(whole[end - 4 - len(i) : end - 3])
        states.append(whole[end - 4 : end])
    assert torch.allclose(torch.cat(plans), apart, atol=1e-5)  # a plan does not see what is behind it
    assert torch.allclose(torch.cat(states), behind, atol=1e-5)


def test_parts_learn_at_their_own_rate_or_not_at_all() -> None:
    policy = make_policy(head={"name": "regression"})
    made = make_optimizer(
        policy, OptimConfig(lr=0.2, factor=0.5, parts={"vision": 0.5, "vision.norm": 0.25}, frozen=["decoder"]), 10
    )["optimizer"]
    rates = {
        id(p): group["lr"] / 0.1 * 100 for group in made.param_groups for p in group["params"]
    }  # the first warm-up step is 1/100
    for name, parameter in policy.named_parameters():
        expected = 0.25 if name.startswith("vision.norm") else 0.5 if name.startswith("vision") else 1.0
        assert name.startswith("decoder") != (id(parameter) in rates)
        assert name.startswith("decoder") or rates[id(parameter)] == pytest.approx(expected)
    for wrong, message in (
        ({"parts": {"visoin": 1.0}}, "nothing that learns"),
        ({"frozen": ["hed"]}, "'hed' is no part of this policy; parts: .*heads"),
    ):
        with pytest.raises(ValueError, match=message):
            make_optimizer(make_policy(), OptimConfig(**wrong), 10)


def test_damaged_policies_are_refused(tmp_path: Path) -> None:
    policy = make_policy()
    folder = save_policy(policy, TINY_POLICY, tmp_path / "p")
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


@pytest.mark.parametrize("second", ["97 31", ""], ids=["all have plans", "one has none"])
def test_plans_are_learned_written_and_returned(second: str) -> None:
    policy, batch = (
        make_policy(head=PLAN | {"plan_optional": not second, "plan_word": "Plan:" if second else ""}),
        robot_batch(rows=2),
    )
    if second:
        with pytest.raises(ValueError, match=r"head\.plan=true needs a plan for every step"):
            robot_loss(policy, replace(batch, plans=["", "97 31"] * 2))
    batch.plans = ["12 200", second] * 2
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    policy.train()
    for _ in range(150):
        optimizer.zero_grad()
        loss = robot_loss(policy, batch).loss_M.mean()
        loss.backward()
        optimizer.step()
    policy.eval()
    actions, plans = policy.predict(batch.images_BVTCHW, [batch.instructions[0], batch.instructions[3]])
    assert plans == ["12 200", second]
    assert np.abs(actions - batch.actions_KHA[[0, 3]].numpy()).max() <= 1.0 / 128
    told = batch.images_BVTCHW, [batch.instructions[0], batch.instructions[3]]
    for nats, kept in (
        (0.0, "12 200"),
        (1.0, "12 200"),
        (1000.0, "97 31"),
    ):  # the policy is surer of its plan than one nat, not than a thousand
        policy.head().hold_plan = nats
        assert policy.holds_plan() == (nats > 0)
        held, plans = policy.predict(*told, before=["97 31", ""])
        assert plans == [kept, second] and np.allclose(held[1], actions[1])  # whoever had no plan has a new one
    assert policy.predict(*told, before=["12 200", second])[1] == ["12 200", second]


@pytest.mark.parametrize("ends", [" Action:", "eos"])
def test_an_empty_plan_is_no_error(ends: str) -> None:
    """Neither where the likeliest word is always the stop word, nor where it is the end of a text and that ends plans, too."""
    policy, batch = make_policy(head=PLAN | {"eos_ends_plan": ends == "eos"}), robot_batch(rows=2)
    tokenizer, fed, step = policy.decoder.tokenizer, [], policy.decoder.step
    likeliest = tokenizer.eos_token_id if ends == "eos" else continuation(tokenizer, ends)[0]
    with torch.no_grad():
        policy.decoder.logits = lambda hidden, ids=None: (
            torch.nn.functional.one_hot(torch.full(hidden.shape[:-1], likeliest), len(tokenizer)).float()
            if ids is None
            else torch.zeros(*hidden.shape[:-1], len(ids))
        )
        policy.decoder.step = lambda state, tokens: fed.append(tokens[0].item()) or step(state, tokens)
        actions, plans = policy.predict(batch.images_BVTCHW, ["pick the banana"] * 2)
    assert actions.shape == (2, 1, 8) and plans == ["", ""]
    word = list(continuation(tokenizer, " Action:"))
    assert fed[: len(word)] == word and tokenizer.eos_token_id not in fed  # as in training


@pytest.mark.parametrize("head", ["regression", "mixture", "flow"])
def test_held_out_errors_are_those_of_the_actions_taken(head: str) -> None:
    policy, batch = make_policy({"name": head}, horizon=2), robot_batch(rows=3, horizon=2)
    made, told = robot_loss(policy, batch).unit_KHA, [batch.instructions[k] for k in (0, 2, 4)]
    taken = policy.plan_and_act(batch.images_BVTCHW, told, "robot").unit_BHA
    assert torch.allclose(made[[0, 2, 4]], taken, atol=1e-5)
    if head == "flow":  # drawn anew, as pi-0 does, they are other actions every time
        policy.head().noise = 1.0
        assert not torch.equal(*(policy.plan_and_act(batch.images_BVTCHW, told, "robot").unit_BHA for _ in range(2)))
