"""Whole vision-language models: logits of Hugging Face; batches, caches and the robot's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from policies import HEADS, WORDS, build_policy, robot_batch, robot_loss, spec
from vlm_models import make_default_vlm, make_vlm

from vla.config import build
from vla.models.decoders.base import Prefix
from vla.models.decoders.constraints import FreeText
from vla.models.decoders.generation import generate
from vla.models.decoders.text import continuation, encode, text_loss
from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.models.prompts import robot_prompt
from vla.policies.checkpoint import load_policy, save_policy

# Prefix mask; rotary positions in three dimensions; convolutions that padding would change; an
# encoder-decoder model.
FAMILIES = ("paligemma", "qwen2_5_vl", "lfm2_vl", "florence2")
BY_HAND = ("paligemma", "qwen2_5_vl")
PROMPTS = [
    robot_prompt(t) for t in ("pick up the red apple", "banana", "what kind of thing is the fruit")
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("vlm")
    return {
        f: make_vlm(f, root / f, train_tokenizer(WORDS, 800))
        if f in BY_HAND
        else make_default_vlm(f, root / f)
        for f in FAMILIES
    }


def make_decoder(folder: str) -> Any:
    config = {"name": "vlm", "model": folder}
    return build("decoder", config, tokenizer=load_tokenizer(folder)).eval()


def decoder_and_images(folder: str) -> tuple[Any, Prefix]:
    """A decoder and a prefix of two images."""
    decoder = make_decoder(folder)
    torch.manual_seed(1)
    images = torch.randint(0, 256, (2, 1, 1, 3, 32, 32), dtype=torch.uint8)
    return decoder, decoder.image_prefix(images)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_hugging_face(family: str, folders: dict[str, str]) -> None:
    decoder, prefix = decoder_and_images(folders[family])
    row, target = torch.tensor([1]), list(continuation(decoder.tokenizer, " 1 2 3 fruit"))
    ours = decoder.logits(decoder.encode_texts(prefix, row, PROMPTS[:1], [target]))
    inputs = decoder.process(prefix, row, PROMPTS[:1], [[]]).arguments
    if family == "florence2":
        start = inputs["decoder_input_ids"][:, :1]
        inputs["decoder_input_ids"] = torch.cat([start, torch.tensor([target])], 1)
    else:
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([target])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        for name, kind in (("token_type_ids", 1), ("mm_token_type_ids", 0)):
            if name in inputs:
                added = torch.full((1, len(target)), kind)
                inputs[name] = torch.cat([inputs[name], added], 1)
    theirs = decoder.lm(**inputs).logits[0, -len(target) - 1 :]
    assert torch.allclose(ours, theirs, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_unlike_prompts_equals_single_prompts(
    family: str, folders: dict[str, str]
) -> None:
    decoder, prefix = decoder_and_images(folders[family])
    targets = [list(continuation(decoder.tokenizer, t)) for t in (" 1 2 3", " 200 7", " 9")]
    owner = torch.tensor([0, 1, 0])
    together = text_loss(decoder, prefix, owner, PROMPTS, targets).loss_M
    row = torch.tensor([0])
    single = [
        text_loss(decoder, prefix.select([o]), row, [p], [t]).loss_M
        for o, p, t in zip(owner.tolist(), PROMPTS, targets, strict=True)
    ]
    assert torch.allclose(together, torch.cat(single), atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_generation_equals_uncached_encoding(family: str, folders: dict[str, str]) -> None:
    decoder, prefix = decoder_and_images(folders[family])
    prompts = [robot_prompt("pick"), robot_prompt("pick up the red apple banana")]
    constraints = [FreeText(-1, 6) for _ in prompts]
    generate(decoder, prefix, prompts, constraints)
    for n, constraint in enumerate(constraints):
        hidden = decoder.encode_texts(
            prefix.select([n]), torch.tensor([0]), prompts[n : n + 1], [constraint.tokens]
        )
        assert decoder.logits(hidden)[:-1].argmax(-1).tolist() == constraint.tokens


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_attend_image_false_hides_the_image(family: str, folders: dict[str, str]) -> None:
    decoder, prefix = decoder_and_images(folders[family])
    args = (torch.tensor([0]), PROMPTS[:1], [list(continuation(decoder.tokenizer, " fruit"))])
    views = [prefix.select([n]) for n in (0, 1)]
    hidden = [
        text_loss(decoder, p, *args, attend_image_K=torch.tensor([False])).loss_M for p in views
    ]
    visible = [text_loss(decoder, p, *args).loss_M for p in views]
    assert torch.allclose(*hidden, atol=1e-6) and not torch.allclose(*visible, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_queries_follow_the_target_ids(family: str, folders: dict[str, str]) -> None:
    decoder, prefix = decoder_and_images(folders[family])
    width = decoder.width
    owner, queries = torch.tensor([0, 1]), torch.randn(2, 4, width)
    other = queries.clone()
    other[:, -1] = torch.randn(2, width)
    ids = [encode(decoder.tokenizer, " apple")] * 2
    apart = decoder.encode_texts(prefix, owner, PROMPTS[:2], ids).reshape(2, -1, width)
    count = apart.shape[1]
    for parallel in (False, True):
        a, b = (
            decoder.encode_texts(
                prefix, owner, PROMPTS[:2], ids, queries_KQD=q, parallel=parallel
            ).reshape(2, -1, width)
            for q in (queries, other)
        )
        assert torch.allclose(a[:, :count], apart, atol=1e-5)  # text attends to no query
        assert torch.allclose(a[:, count:-1], b[:, count:-1], atol=1e-5) != parallel


@pytest.mark.parametrize(
    "family", ["qwen2_5_vl", pytest.param("florence2", marks=pytest.mark.slow)]
)
def test_the_state_beside_a_vlm_trains_and_reloads(
    family: str, folders: dict[str, str], tmp_path: Path
) -> None:
    config = {
        "decoder": {"name": "vlm", "model": folders[family]},
        "head": HEADS["token"][0],
        "state": True,
    }
    statistics = {"mean": [0.0, 0.0], "min": [-1.0, -1.0], "max": [1.0, 1.0]}
    statistics |= {"q01": [-1.0, -1.0], "q99": [1.0, 1.0], "std": [1.0, 1.0]}
    robot = spec(2)
    robot.statistics["state"] = statistics
    policy = build_policy(config, load_tokenizer(folders[family]), specs={"robot": robot})
    batch = robot_batch(2, 2)
    batch.state_BTP = torch.tensor([[[0.5, -0.5]], [[-1.0, 1.0]]])
    policy.train()
    loss = robot_loss(policy, batch).loss_M.mean()
    loss.backward()
    assert float(policy.states[0].project.weight.grad.abs().sum()) > 0
    torch.optim.SGD(policy.parameters(), 0.1).step()
    policy.eval()
    save_policy(policy, {"name": "vla", **config}, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy", "cpu")
    images, state = batch.images_BVTCHW, batch.state_BTP
    actions = policy.predict(images, ["pick"] * 2, state_BTP=state)[0]
    assert np.array_equal(loaded.predict(images, ["pick"] * 2, state_BTP=state)[0], actions)
    with torch.no_grad():
        losses = []
        for change in (0.0, 1.0):
            batch.state_BTP = state + change
            losses.append(robot_loss(loaded, batch).loss_M)
    assert not torch.allclose(*losses, atol=1e-6)
