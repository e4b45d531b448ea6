"""Plans (chain of thought): learned as text, written before the action, and kept between steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY
from policies import make_policy, robot_batch, robot_loss

from vla.models.decoders.text import continuation
from vla.models.prompts import plan_text, robot_prompt
from vla.policies.checkpoint import load_policy, save_policy
from vla.types import RobotBatch

TOKEN_HEAD = {"name": "token", "plan": True}
REGRESSION_HEAD = {"name": "chain_of_thought", "action": {"name": "regression"}, "plan_tokens": 8}


def fit(policy: Any, batch: RobotBatch, steps: int) -> list[float]:
    """Overfit the batch; returns the losses. The policy is in evaluation mode afterwards."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    policy.train()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = robot_loss(policy, batch).loss_M.mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    policy.eval()
    return losses


def test_chain_of_thought_predicts_the_action_of_its_plan(tmp_path: Path) -> None:
    policy, batch = make_policy(head=REGRESSION_HEAD), robot_batch(rows=2)
    out = robot_loss(policy, batch)
    assert len(out.loss_M) == len(out.text_M) and sorted(set(out.text_M.tolist())) == [0, 1, 2, 3]
    assert out.normalized_actions_KHA.shape == (4, 1, 8)
    losses = fit(policy, batch, 100)
    assert losses[-1] < 0.5 * losses[0]
    images, instructions = batch.images_BVTCHW, batch.instructions[:2]
    actions, plans = policy.predict(images, instructions)
    assert plans == ["apple 12 40", "banana 3 99"]
    saved = save_policy(policy, TINY_POLICY | {"head": REGRESSION_HEAD}, tmp_path / "policy")
    loaded_actions, _ = load_policy(saved).predict(images, instructions)
    assert np.allclose(loaded_actions, actions, atol=1e-5)
    # A large margin keeps the previous plans, and the actions are those of the kept plans.
    head, swapped = policy.head(), plans[::-1]
    head.plan_switch_margin = 1000.0
    kept_actions, kept = policy.predict(images, instructions, previous_plans=swapped)
    assert kept == swapped
    prefix, normalise = policy.prefix(images, "robot"), policy.normaliser()

    def distance(plan_texts: list[str]) -> float:
        """From the kept actions to those of the head with these plans."""
        ids = [head.plan_format.ids(policy.decoder.tokenizer, text) for text in plan_texts]
        with torch.no_grad():
            made = head.action.predict(policy.decoder, prefix, instructions, ids)
        expected_BHA = normalise(torch.from_numpy(kept_actions))
        return float((made.normalized_actions_BHA - expected_BHA).abs().max())

    assert distance(swapped) < 1e-5 and distance(plans) > 10 * distance(swapped)


def test_chain_of_thought_needs_plans_and_a_head_without_text() -> None:
    policy, batch = make_policy(head=REGRESSION_HEAD), robot_batch(rows=2)
    with pytest.raises(ValueError, match="needs a plan for every step"):
        robot_loss(policy, replace(batch, plans=["", "a", "b", "c"]))
    with pytest.raises(ValueError, match="generates text itself"):
        make_policy(head={"name": "chain_of_thought", "action": {"name": "token"}})


@pytest.mark.parametrize("head", [TOKEN_HEAD, REGRESSION_HEAD], ids=lambda h: h["name"])
def test_loss_vocabulary_robot_leaves_other_words_unchanged(
    head: dict[str, Any], tmp_path: Path
) -> None:
    """With it, the embedding of a word that occurs in no plan gets no gradient."""
    batch, gradients = robot_batch(rows=2), {}
    for loss_vocabulary in ("all", "robot"):
        policy = make_policy(head=head | {"loss_vocabulary": loss_vocabulary}).train()
        robot_loss(policy, batch).loss_M.mean().backward()
        rows = policy.decoder.lm.get_input_embeddings().weight.grad.abs().sum(1)
        tokenizer = policy.decoder.tokenizer
        ids = [continuation(tokenizer, word)[0] for word in (" fruit", " apple")]
        gradients[loss_vocabulary] = [float(rows[i]) for i in ids]
    assert min(gradients["all"]) > 0
    other_word, plan_word = gradients["robot"]
    assert other_word == 0 and plan_word > 0
    # The known tokens are saved.
    vocabulary = policy.head().restricted_vocabulary
    config = TINY_POLICY | {"head": head | {"loss_vocabulary": "robot"}}
    loaded = load_policy(save_policy(policy, config, tmp_path / "policy"))
    known = loaded.head().restricted_vocabulary.known_V
    assert torch.equal(known.cpu(), vocabulary.known_V) and 1 < known.sum() < len(known)
    # In evaluation, a new token counts for its batch only.
    policy.eval()
    known = vocabulary.known_V.clone()
    unknown = int((~known).nonzero()[0])
    assert vocabulary(([unknown],)).sum() == known.sum() + 1
    assert torch.equal(vocabulary.known_V, known)


@pytest.mark.parametrize("parallel", [True, False])
def test_queries_after_token_ids_equal_queries_after_the_same_text(parallel: bool) -> None:
    policy, batch = make_policy(), robot_batch(rows=2)
    prefix, decoder = policy.prefix(batch.images_BVTCHW, "robot"), policy.decoder
    tokenizer, rows_K = decoder.tokenizer, batch.image_index_K
    prompts = [robot_prompt(i) for i in batch.instructions]
    plans = ("apple 12 40", "banana", "pick", "the red apple")
    ids = [list(continuation(tokenizer, plan_text(plan))) for plan in plans]
    options = {"queries_KQD": torch.randn(4, 3, decoder.width), "parallel": parallel}
    both = decoder.encode_texts(prefix, rows_K, prompts, ids, **options)
    ids_only = decoder.encode_texts(prefix, rows_K, prompts, ids)
    texts = [p + tokenizer.decode(i) for p, i in zip(prompts, ids, strict=True)]
    queries_only = decoder.encode_texts(prefix, rows_K, texts, [[]] * 4, **options)
    at_ids, at_queries = [], []
    for end, i in zip(np.cumsum([len(i) + 4 for i in ids]), ids, strict=True):
        at_ids.append(both[end - 4 - len(i) : end - 3])
        at_queries.append(both[end - 4 : end])
    assert torch.allclose(torch.cat(at_ids), ids_only, atol=1e-5)  # ids do not attend to queries
    assert torch.allclose(torch.cat(at_queries), queries_only, atol=1e-5)


@pytest.mark.parametrize(
    "second",
    ["97 31", pytest.param("", marks=pytest.mark.slow)],
    ids=["all have plans", "one has none"],
)
def test_the_token_head_writes_plans_and_keeps_them_within_the_margin(second: str) -> None:
    options = {"allow_missing_plan": not second, "plan_word": "Plan:" if second else ""}
    policy, batch = make_policy(head=TOKEN_HEAD | options), robot_batch(rows=2)
    if second:
        with pytest.raises(ValueError, match=r"head\.plan=true needs a plan for every step"):
            robot_loss(policy, replace(batch, plans=["", "97 31"] * 2))
    batch.plans = ["12 200", second] * 2
    fit(policy, batch, 150)
    inputs = batch.images_BVTCHW, [batch.instructions[0], batch.instructions[3]]
    actions, plans = policy.predict(*inputs)
    assert plans == ["12 200", second]
    assert np.abs(actions - batch.actions_KHA[[0, 3]].numpy()).max() <= 1.0 / 128
    # The new plan is more than 1 nat likelier than the previous one, but not 1000 nats.
    for margin, expected in ((0.0, "12 200"), (1.0, "12 200"), (1000.0, "97 31")):
        policy.head().plan_switch_margin = margin
        assert policy.uses_previous_plan() == (margin > 0)
        kept_actions, plans = policy.predict(*inputs, previous_plans=["97 31", ""])
        assert plans == [expected, second]
        assert np.allclose(kept_actions[1], actions[1])  # a row without a previous plan
    _, plans = policy.predict(*inputs, previous_plans=["12 200", second])
    assert plans == ["12 200", second]


@pytest.mark.parametrize("last", [" Action:", "eos"])
def test_an_empty_plan_is_valid(last: str) -> None:
    """The likeliest token is always the stop word, or always the end of text."""
    policy, batch = make_policy(head=TOKEN_HEAD | {"eos_ends_plan": last == "eos"}), robot_batch(2)
    decoder, tokenizer = policy.decoder, policy.decoder.tokenizer
    fed, decode_step = [], decoder.decode_step
    likeliest = tokenizer.eos_token_id if last == "eos" else continuation(tokenizer, last)[0]

    def logits(hidden: torch.Tensor, ids: Any = None) -> torch.Tensor:
        if ids is not None:
            return torch.zeros(*hidden.shape[:-1], len(ids))
        tokens = torch.full(hidden.shape[:-1], likeliest)
        return torch.nn.functional.one_hot(tokens, len(tokenizer)).float()

    def recorded_step(state: Any, tokens: torch.Tensor) -> Any:
        fed.extend(tokens[0].tolist())
        return decode_step(state, tokens)

    decoder.logits, decoder.decode_step = logits, recorded_step
    actions, plans = policy.predict(batch.images_BVTCHW, ["pick the banana"] * 2)
    assert actions.shape == (2, 1, 8) and plans == ["", ""]
    stop = list(continuation(tokenizer, " Action:"))
    assert fed[: len(stop)] == stop and tokenizer.eos_token_id not in fed  # as in training
