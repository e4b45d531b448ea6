"""``plan: auto``: the decoder chooses to write a plan or to act at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY
from policies import make_policy, robot_batch, robot_loss

from vla.errors import ConfigError
from vla.inference.runner import PolicyRunner
from vla.models.decoders.constraints import Choice, ForcedTokens, FreeText, Segments
from vla.models.decoders.text import continuation
from vla.models.heads.plans import PlanFormat
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.decoding import DecodingOptions, set_decoding
from vla.types import RobotBatch

PLANNED, DIRECT = "pick up the red apple", "pick the banana"  # instructions of ``robot_batch``
HEADS: dict[str, dict[str, Any]] = {
    "token": {"name": "token", "plan": "auto"},
    "token, plan word": {"name": "token", "plan": "auto", "plan_word": "Plan:"},
    "regression": {
        "name": "chain_of_thought",
        "action": {"name": "regression"},
        "plan": "auto",
        "plan_tokens": 8,
    },
}


def batch_of_both() -> RobotBatch:
    """Rows with a plan for one instruction and without a plan for the other."""
    batch = robot_batch(rows=2)
    return replace(batch, plans=["apple 12 40", ""] * 2)


def fitted(head: dict[str, Any], batch: RobotBatch, steps: int = 120) -> Any:
    """A policy that has overfitted the batch."""
    policy = make_policy(head=head).train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        robot_loss(policy, batch).loss_M.mean().backward()
        optimizer.step()
    return policy.eval()


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(HEADS["token"]),
        pytest.param(HEADS["token, plan word"], marks=pytest.mark.slow),
        pytest.param(HEADS["regression"], marks=pytest.mark.slow),
    ],
    ids=lambda h: f"{h['name']} {h.get('plan_word', '')}",
)
def test_one_policy_takes_both_paths_depending_on_the_instruction(
    head: dict[str, Any], tmp_path: Path
) -> None:
    batch = batch_of_both()
    policy = fitted(head, batch)
    saved = load_policy(save_policy(policy, TINY_POLICY | {"head": head}, tmp_path / "policy"))
    for chosen in (policy, saved):
        # Rows of different paths in one batch equal single rows, in any order.
        images = batch.images_BVTCHW[[0, 0]]
        actions, plans = chosen.predict(images, [PLANNED, DIRECT])
        assert plans == ["apple 12 40", ""]
        swapped, swapped_plans = chosen.predict(images, [DIRECT, PLANNED])
        assert swapped_plans == plans[::-1] and np.allclose(swapped, actions[::-1], atol=1e-5)
        for row, text in enumerate((PLANNED, DIRECT)):
            alone, plan = chosen.predict(images[:1], [text])
            assert plan == [plans[row]] and np.allclose(alone[0], actions[row], atol=1e-5)
        if head["name"] == "token":
            error = np.abs(actions - batch.actions_KHA[:2].numpy())
            assert error.max() <= 1.0 / 128
    check_forced_paths(saved.robot(), images)


def check_forced_paths(policy: Any, images: torch.Tensor) -> None:
    """``plan: true`` and ``plan: false`` override the decoder's choice."""
    set_decoding(policy, DecodingOptions(plan=True))
    _, plans = policy.predict(images, [PLANNED, DIRECT])
    assert plans[0] == "apple 12 40" and plans[1]
    set_decoding(policy, DecodingOptions(plan=False))
    assert policy.predict(images, [PLANNED, DIRECT])[1] == ["", ""]
    set_decoding(policy, DecodingOptions(plan="auto"))
    assert policy.predict(images, [PLANNED, DIRECT])[1] == ["apple 12 40", ""]
    runner = PolicyRunner(policy)
    image = images[0, 0, 0].permute(1, 2, 0).numpy()
    for key, (text, plan) in enumerate(((PLANNED, "apple 12 40"), (DIRECT, ""))):
        runner.act([key], [{"images": {"top": image}, "instruction": text}])
        assert runner.plan(key) == plan


@pytest.mark.parametrize("name", HEADS)
def test_rows_without_a_plan_are_trained_on_the_action_word_alone(name: str) -> None:
    policy, batch = make_policy(head=HEADS[name]), batch_of_both()
    tokenizer, plan_format = policy.decoder.tokenizer, policy.head().plan_format
    assert plan_format.ids(tokenizer, "") == list(continuation(tokenizer, " Action:"))
    text = tokenizer.decode(plan_format.ids(tokenizer, "apple 12 40"))
    assert text == f"{' Plan:' if 'word' in name else ''} apple 12 40 Action:"
    assert torch.isfinite(robot_loss(policy, batch).loss_M).all()
    none = robot_loss(policy, replace(batch, plans=[""] * 4))
    assert len(none.loss_M) < len(robot_loss(policy, batch).loss_M)


def test_a_plan_ends_at_its_maximal_length(caplog: pytest.LogCaptureFixture) -> None:
    policy = make_policy(head=HEADS["token"] | {"plan_tokens": 2})
    batch, decoder = replace(batch_of_both(), plans=["pick up the red apple"] * 4), policy.decoder
    for _ in range(2):
        robot_loss(policy, batch)
    assert caplog.text.count("a plan has 5 tokens, but head.plan_tokens=2") == 1
    word = continuation(decoder.tokenizer, " apple")[0]

    def logits(hidden: torch.Tensor, ids: Any = None) -> torch.Tensor:
        if ids is not None:
            return torch.zeros(*hidden.shape[:-1], len(ids))
        tokens = torch.full(hidden.shape[:-1], word)
        return torch.nn.functional.one_hot(tokens, len(decoder.tokenizer)).float()

    decoder.logits = logits
    actions, plans = policy.predict(batch.images_BVTCHW, [PLANNED, DIRECT])
    assert plans == ["apple apple"] * 2 and actions.shape == (2, 1, 8)


def test_a_choice_of_texts_with_a_common_beginning() -> None:
    shared: dict[tuple[int, ...], torch.Tensor] = {}

    def id_tensor(ids: tuple[int, ...]) -> torch.Tensor:
        return shared.setdefault(ids, torch.tensor(ids))

    def texts() -> tuple[Segments, FreeText]:
        plan, end = FreeText(9, 4), ForcedTokens([9, 8], id_tensor)
        choice = Choice([([1, 2], [plan, end]), ([1, 3, 4], [])], id_tensor)
        return Segments([choice, ForcedTokens([7], id_tensor)]), plan

    for tokens, allowed, written in (
        ([1, 2, 5, 9, 8, 7], [[1], [2, 3], None, None, [8], [7]], [5]),
        ([1, 3, 4, 7], [[1], [2, 3], [4], [7]], []),
    ):
        segments, plan = texts()
        for token, ids in zip(tokens, allowed, strict=True):
            now = segments.allowed()
            assert (None if now is None else now.tolist()) == ids and not segments.done
            segments.push(token)
        assert segments.done and plan.tokens == written


def test_only_a_policy_that_is_trained_with_auto_can_do_both() -> None:
    for trained, mode in ((False, True), (False, "auto"), (True, False), (True, "auto")):
        policy = make_policy(head={"name": "token", "plan": trained}).robot()
        set_decoding(policy, DecodingOptions(plan=trained))
        expected = rf"plan={str(mode).lower()}: .*head\.plan={str(trained).lower()}; only one"
        with pytest.raises(ConfigError, match=expected):
            set_decoding(policy, DecodingOptions(plan=mode))  # type: ignore[arg-type]
    policy = make_policy(head={"name": "regression"}).robot()
    set_decoding(policy, DecodingOptions())
    with pytest.raises(ConfigError, match="plan: this policy generates no text"):
        set_decoding(policy, DecodingOptions(plan=True))


def test_options_of_plans_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"head\.plan: 'atuo' is not allowed.*auto"):
        make_policy(head={"name": "token", "plan": "atuo"})
    with pytest.raises(ConfigError, match=r"head\.plan: False is not allowed"):
        make_policy(head=HEADS["regression"] | {"plan": False})
    with pytest.raises(ValueError, match=r"plan_tokens=0: at least 1"):
        PlanFormat("auto", 0)
    with pytest.raises(ValueError, match=r"'Action:' ends a plan"):
        PlanFormat("auto", 4, "Action:")

    class OneWord:
        """Knows no word."""

        def encode(self, text: str, **_: Any) -> list[int]:
            return [0] * len(text.split())

        def __len__(self) -> int:
            return 1

    PlanFormat("auto", 4).check(OneWord())
    with pytest.raises(ValueError, match=r"head\.plan_word='Plan:': this tokenizer does not dist"):
        PlanFormat("auto", 4, "Plan:").check(OneWord())
