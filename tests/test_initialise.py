"""``init_from``: what a new policy takes from a saved one, and what it says about the rest."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_POLICY
from policies import HEADS, WORDS, build_policy, robot_batch, spec

from vla.config import check
from vla.errors import DataError
from vla.models.decoders.tokenizer import load_tokenizer
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.initialise import start_from, with_saved_token_ids
from vla.training.run import RunConfig, train

# Lightning and TensorBoard emit warnings that have no bearing on this package
pytestmark = pytest.mark.filterwarnings("default")

TOKEN, QUANTILE, FAST = HEADS["token"]
REGRESSION, FLOW = HEADS["regression"][0], HEADS["flow"][0]
PLANNED = {"name": "chain_of_thought", "action": REGRESSION}


def saved(head: dict[str, Any], path: Path, **changes: Any) -> Path:
    """A policy whose weights differ from those of every new policy."""
    wired = {k: changes.pop(k) for k in ("specs", "chunks", "words") if k in changes}
    config = TINY_POLICY | {"head": head} | changes
    policy = build_policy(config, **wired)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.rand_like(parameter))
    return save_policy(policy, config, path)


def started(head: dict[str, Any], path: Path, **changes: Any) -> tuple[Any, list[str]]:
    """A new policy after ``start_from``, and its lines without the path."""
    wired = {k: changes.pop(k) for k in ("specs", "chunks", "words") if k in changes}
    config = with_saved_token_ids(TINY_POLICY | {"head": head} | changes, path)
    policy = build_policy(config, load_tokenizer(path / "tokenizer"), **wired)
    lines = start_from(policy, path)
    assert all(line.startswith(f"init_from {path}: ") for line in lines)
    return policy, [line.removeprefix(f"init_from {path}: ") for line in lines]


def equal(ours: Any, theirs: Any) -> bool:
    """True if every weight of ``theirs`` is one of ``ours``, which may have more token rows."""
    state = ours.state_dict()
    return all(torch.equal(state[n][: len(t)], t) for n, t in theirs.state_dict().items())


@pytest.mark.parametrize("head", [REGRESSION, FLOW, *HEADS["mixture"], *HEADS["classification"]])
def test_a_head_that_fits_is_kept(head: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(head, tmp_path / "p")
    policy, lines = started(head, folder)
    theirs = load_policy(folder, "cpu")
    for part in ("vision", "connector", "decoder", "heads"):
        assert equal(getattr(policy, part), getattr(theirs, part)), part
    assert lines == ["kept: connector, decoder, vision", "kept: action head"]


@pytest.mark.parametrize(
    ("before", "now", "horizon", "reason"),
    [
        (TOKEN, REGRESSION, 2, "it was token, it is regression here"),
        (REGRESSION, FLOW, 2, "it was regression, it is flow here"),
        (REGRESSION, REGRESSION, 3, r"queries.query_HD was \(2, 32\), is \(3, 32\) here"),
        (TOKEN, QUANTILE, 2, "the codec was .*uniform.*, it is .*quantile.* here"),
        (TOKEN, TOKEN | {"first_number": -10}, 2, "the first_number was 0, it is -10 here"),
        (FAST, FAST, 3, r"the codec is of chunks of \(2, 8\), here of \(3, 8\) \(steps, dim"),
        (
            {"name": "mixture", "modes": 3},
            {"name": "mixture", "modes": 4},
            2,
            r"out.weight was \(51, 32\), is \(68, 32\) here",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_new_and_the_reason_is_logged(
    before: dict[str, Any], now: dict[str, Any], horizon: int, reason: str, tmp_path: Path
) -> None:
    folder = saved(before, tmp_path / "p")
    chunks = {"robot": robot_batch(20, horizon).actions_KHA}
    new = {"specs": {"robot": spec(horizon)}, "chunks": chunks}
    tokenizer = load_tokenizer(folder / "tokenizer")
    fresh = build_policy(TINY_POLICY | {"head": now}, tokenizer, **new)
    policy, lines = started(now, folder, **new)
    assert equal(policy.heads, fresh.heads)
    assert equal(policy.vision, load_policy(folder, "cpu").vision)
    (line,) = [line for line in lines if "action head" in line]
    with pytest.raises(AssertionError, match=f"not kept: action head: {reason}"):
        raise AssertionError(line)


def test_the_head_after_a_plan_is_the_head_without_one(tmp_path: Path) -> None:
    plain = saved(REGRESSION, tmp_path / "plain")
    planned, lines = started(PLANNED, plain)
    assert lines[-1] == "kept: action head"
    assert equal(planned.head().action, load_policy(plain, "cpu").head())
    after = saved(PLANNED | {"loss_vocabulary": "robot"}, tmp_path / "planned")
    assert equal(started(REGRESSION, after)[0].head(), load_policy(after, "cpu").head().action)


def test_fast_keeps_its_byte_pairs_and_new_tokens_extend_the_embeddings(tmp_path: Path) -> None:
    other = {"robot": robot_batch(20, 2, seed=7).actions_KHA}
    folder = saved(FAST, tmp_path / "fast", chunks=other)
    policy, lines = started(FAST, folder)
    codec = load_policy(folder, "cpu").head().codec
    assert lines[-1] == "kept: action head" and policy.head().codec.pieces == codec.pieces
    actions = policy.normaliser()(other["robot"])
    assert policy.head().codec.encode(actions, []) == codec.encode(actions, [])
    plain = saved(TOKEN, tmp_path / "plain")
    policy, lines = started(FAST, plain)
    assert lines[1] == "not kept: embeddings of 128 tokens: the saved policy has no such"
    embeddings = policy.decoder.lm.get_input_embeddings().weight
    known = load_policy(plain, "cpu").decoder.lm.get_input_embeddings().weight
    assert len(embeddings) == len(known) + 128 and torch.equal(embeddings[: len(known)], known)
    assert equal(policy.vision, load_policy(plain, "cpu").vision)


def test_overwritten_token_ids_are_those_of_the_saved_decoder(tmp_path: Path) -> None:
    folder = saved(QUANTILE, tmp_path / "p")
    ids = load_policy(folder, "cpu").head().vocabulary.single_ids
    words = Counter({word: 1000 - count for word, count in WORDS.items()} | {"zebra": 900})
    policy, lines = started(QUANTILE, folder, words=words)
    assert torch.equal(policy.head().vocabulary.single_ids, ids)
    assert lines[-1] == "kept: action head"


def test_embeddings_beside_adapters_start_from_the_saved_decoder(tmp_path: Path) -> None:
    folder = saved(QUANTILE, tmp_path / "p")
    decoder = TINY_POLICY["decoder"] | {"lora": {"rank": 2}}
    policy, _ = started(QUANTILE, folder, decoder=decoder)
    beside = policy.decoder.trainable_embeddings
    rows = load_policy(folder, "cpu").decoder.lm.get_input_embeddings().weight[beside.ids]
    assert torch.equal(beside.input_embeddings, rows)


def test_every_robot_keeps_its_own_parts(tmp_path: Path) -> None:
    statistics = spec().statistics | {"state": {k: [0.0, 1.0] for k in ("mean", "q01", "min")}}
    statistics["state"] |= {k: [1.0, 2.0] for k in ("q99", "max")}
    one = replace(spec(2, ("top", "wrist")), statistics=statistics)
    two = {"arm": one, "hand": replace(one, cameras=("wrist", "top"))}
    folder = saved(REGRESSION, tmp_path / "p", specs=two, state=True)
    theirs = load_policy(folder, "cpu")
    three = {"another": one, "arm": one, "hand": replace(one, cameras=("top", "wrist"))}
    policy, lines = started(REGRESSION, folder, specs=three, state=True)
    assert lines[1:] == [
        "not kept: action head of robot another: the saved policy has no robot another, only arm, "
        "hand",
        "kept: action head of robot arm",
        "kept: state encoder of robot arm",
        "kept: camera embeddings of robot arm",
        "kept: action head of robot hand",
        "kept: state encoder of robot hand",
        "not kept: camera embeddings of robot hand: the cameras or the frames of history differ",
    ]
    for name in ("arm", "hand"):
        assert equal(policy.head(name), theirs.head(name))
    assert equal(policy.states[1], theirs.states[0]) and not equal(
        policy.states[0], theirs.states[0]
    )
    assert torch.equal(policy.views_VTD["1"], theirs.views_VTD["0"])
    # One robot in each: its name does not matter.
    alone = saved(REGRESSION, tmp_path / "alone", specs={"left": one})
    assert started(REGRESSION, alone, specs={"right": one})[1][-2] == "kept: action head"


def test_another_vision_encoder_is_refused(tmp_path: Path) -> None:
    folder = saved(TOKEN, tmp_path / "p")
    wider = {"name": "conv", "widths": [8, 24], "blocks": [0, 1], "image_size": 32}
    with pytest.raises(DataError, match=r"\.weight does not fit this policy; init_from needs"):
        started(TOKEN, folder, vision=wider)


def test_training_says_what_it_keeps(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = saved(REGRESSION, tmp_path / "first", specs={"robot": spec(1)})
    tiny_run["train"] = tiny_run["train"] | {"steps": 1, "val_windows": 1}
    tiny_run["optim"] = {"lr": 0.0, "weight_decay": 0.0}
    tiny_run |= {"policy": TINY_POLICY | {"head": REGRESSION}, "init_from": str(first)}
    second = train(check(tiny_run, RunConfig, ""))
    line = f"init_from {first}: kept: action head\n"
    assert line in capsys.readouterr().err
    assert line in (second.parent / "train.log").read_text()
    assert equal(load_policy(second, "cpu").heads, load_policy(first, "cpu").heads)
