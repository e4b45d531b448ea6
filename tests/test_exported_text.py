"""Tables of exported policies allow the same tokens and give the same numbers as the policy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from policies import make_policy, robot_batch

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.errors import ActionError
from vla.inference.export_tables import decoding_table, units_table
from vla.inference.exported_text import Action, ActionRules, make_segments, sampling_pick
from vla.inference.exported_units import chunk_values, robot_units
from vla.models.decoders.constraints import FreeText, Segments
from vla.models.decoders.sampling import Sampling, TokenSampler
from vla.models.heads.action_texts import action_texts
from vla.policies.spec import RobotSpec
from vla.policies.units import to_legal_actions

HEADS: dict[str, dict[str, Any]] = {
    "act at once": {},
    "plan": {"plan": True, "plan_tokens": 3, "eos_ends_plan": True},
    "plan word": {"plan": True, "plan_word": "Plan:", "plan_tokens": 3},
    "auto": {"plan": "auto", "plan_tokens": 3},
    "auto with word": {"plan": "auto", "plan_word": "Plan:", "plan_tokens": 3},
    "many tokens": {"plan": True, "plan_tokens": 2, "codec": {"name": "uniform", "bins": 400}},
    "extra": {"token_assignment": "extra", "codec": {"name": "uniform", "bins": 16}},
    "fast": {"token_assignment": "extra", "codec": {"name": "fast", "vocab_size": 128}},
}


def head_of(options: dict[str, Any]) -> tuple[Any, Any]:
    """A tiny policy with a token head of chunks of 2, and the head."""
    policy: Any = make_policy({"name": "token", **options}, horizon=2)
    head = policy.heads[0]
    if options.get("codec", {}).get("name") == "fast":
        chunks = policy.normaliser()(robot_batch(20, 2).actions_KHA)
        head.codec._set_tokenizer(head.codec._train(chunks))
    return policy, head


def table_of(policy: Any, head: Any) -> dict[str, Any]:
    """The table as it is read from JSON."""
    return json.loads(json.dumps(decoding_table(policy.decoder, head, [0, 0], [])))


@pytest.mark.parametrize("name", HEADS)
def test_random_walks_over_allowed_tokens_are_the_same(name: str) -> None:
    policy, head = head_of(HEADS[name])
    if HEADS[name].get("plan") == "auto":
        head.plan_format.set_mode("auto")
    table = table_of(policy, head)
    rules, random = ActionRules(table["action"]), np.random.default_rng(0)
    for walk in range(12):
        (expected,), (plan,), (action,) = action_texts(head, policy.decoder, [[]])
        free: list[FreeText] = []
        ours = Action(rules)
        segments = make_segments(table["segments"], table["vocabulary"], free)
        text, steps = Segments([*segments, ours]), 0
        while not expected.done:
            ids, allowed = expected.allowed(), text.allowed()
            if ids is None or allowed is None:
                assert ids is None and allowed is None
                token = free[0].stop if random.random() < 0.3 else 700 + walk
            else:
                assert allowed.tolist() == ids.tolist()
                token = int(random.choice(allowed))
                some = 1 < len(allowed) < table["vocabulary"] - 1
                assert not some or set(allowed.tolist()) <= set(table["legal"])
            assert text.push(token) == expected.push(token)
            steps += 1
        assert text.done and ours.symbols == action.symbols and steps > 1
        assert [t for f in free for t in f.tokens] == plan.tokens
        values = chunk_values(table["action"], [ours.symbols])
        assert np.array_equal(values, head.codec.decode([action.symbols]).numpy())


def test_the_plan_mode_and_the_text_of_plans_are_those_of_the_policy() -> None:
    policy, head = head_of(HEADS["auto"])
    choices = {}
    for mode in (False, True, "auto"):
        head.plan_format.set_mode(mode)
        choices[mode] = [s["kind"] for s in table_of(policy, head)["segments"]]
    assert choices == {False: ["forced"], True: ["free", "forced"], "auto": ["free", "forced"]}
    head.plan_format.set_mode(True)
    free = table_of(policy, head)["segments"][0]
    assert free["not_first"] == free["stop"]  # a plan has at least one token


def test_random_choice_uses_the_numbers_of_the_sampler() -> None:
    logits = np.random.default_rng(1).normal(size=(40, 30)).astype(np.float32)
    for sampling in (Sampling(0.7, 0, 5), Sampling(1.5, 4, 0)):
        sampler, pick = TokenSampler(sampling, [3, 9]), sampling_pick(vars(sampling), [3, 9])
        for row_logits in logits:
            expected = sampler(torch.from_numpy(np.stack([row_logits] * 2)), [0, 1]).tolist()
            assert [pick(row_logits, 0), pick(row_logits, 1)] == expected
    assert sampling_pick(vars(Sampling()), [])(logits[0], 0) == logits[0].argmax()


def test_numbers_become_the_robot_units_of_the_policy() -> None:
    policy: Any = make_policy(horizon=2)
    low, high = (-3.0, *LAYOUTS["rt2"].low[1:]), (4.0, *LAYOUTS["rt2"].high[1:])
    names = LAYOUTS["rt2"].names
    space = replace(LAYOUTS["rt2"], low=low, high=high, binary=names[-1:], integer=names[:1])
    column = {"min": [0.0] * 8, "max": [1.0] * 7 + [0.0], "mean": [0.5] * 8, "std": [0.1] * 8}
    relative = (1, -1, 0, -1, -1, -1, -1, -1)
    spec = RobotSpec(space, ("top",), (32, 32), horizon=2, state_dim=2, relative=relative)
    spec.statistics["actions"] = column
    units = json.loads(json.dumps(units_table(policy.normaliser(), spec)))
    random = np.random.default_rng(0)
    numbers = random.uniform(-1.2, 1.2, (5, 2, 8)).astype(np.float32)
    state = random.normal(size=(5, 1, 2)).astype(np.float32)
    inverse = policy.normaliser().inverse(torch.from_numpy(numbers)).numpy()
    for one in (spec, replace(spec, relative=())):
        expected = to_legal_actions(one, inverse, torch.from_numpy(state))
        assert np.array_equal(robot_units(one.to_dict(), units, numbers, state), expected)
    with pytest.raises(ValueError, match="relative to the measured state"):
        robot_units(spec.to_dict(), units, numbers, None)
    numbers[2, 1, 3] = np.nan
    with pytest.raises(ActionError, match="not finite"):
        robot_units(spec.to_dict(), units, numbers, state)
