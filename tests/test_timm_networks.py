"""timm networks as vision encoders: features of every kind, options, sizes and the proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vla.config import build
from vla.config.zoo_table import read_verdicts
from vla.errors import ConfigError
from vla.models.vision import proof
from vla.models.vision.network import try_network
from vla.models.vision.proof import families, prove_timm, representative
from vla.models.vision.timm import TimmEncoder

HIERA = {"embed_dim": 32, "stages": [1, 1, 1, 1]}
SMALL: dict[str, dict[str, Any]] = {
    "hiera": {"model": "hiera_tiny_224", "image_size": 64, "options": HIERA},
    "sam2_hiera": {
        "model": "sam2_hiera_tiny",
        "image_size": 64,
        "options": HIERA | {"global_att_blocks": []},
    },
    "levit": {"model": "levit_128s", "image_size": 96},
    "resnet": {"model": "test_resnet", "image_size": 50},
}


def table() -> dict[str, str]:
    """Family -> verdict in the committed table."""
    return {r["family"]: r["verdict"] for r in read_verdicts() if r["kind"] == "timm"}


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_several_rows_equal_single_ones(name: str) -> None:
    encoder = build("vision", {"name": "timm", **SMALL[name]}).eval()
    size = SMALL[name]["image_size"]
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    tokens = encoder(images)
    assert tokens.shape[0] == 3 and tokens.shape[2] == encoder.width
    alone = torch.cat([encoder(image[None]) for image in images])
    assert torch.allclose(tokens, alone, atol=1e-4)
    if "hiera" in name:  # timm does not normalise its features
        assert tokens.mean(-1).abs().max() < 1e-4


class Unused(torch.nn.Module):
    """A network with timm's interface, one weight of which has no influence on the features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.classifier = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Linear(8, 2)

    def forward_intermediates(self, x: torch.Tensor, **options: Any) -> list[torch.Tensor]:
        return [self.stem(x)]


def test_weights_without_influence_are_not_trained() -> None:
    net = Unused()
    assert try_network(net, "resnet18", 32, None, 8, True) == 8
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"classifier.weight", "classifier.bias"}
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 8\) are not \(2, 9, side, side\)"):
        try_network(net, "resnet18", 32, None, 9, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"depht": 1}}, r"options\.depht: timm's \S+ has no such option; .*'depth'"),
        (
            {"options": {"img_size": 64}},
            r"options\.img_size: the encoder sets it; use .*image_size",
        ),
        ({"options": {"in_chans": 4}}, r"options\.in_chans: cannot be changed"),
        ({"image_size": 50}, r"image_size=50: timm's \S+ has no features for this size"),
        ({"model": "vit_tny_patch16_224"}, r"model='vit_tny_\S+: timm has .* mean 'vit_tiny_"),
    ],
)
def test_wrong_options_and_sizes_are_refused(change: dict[str, Any], message: str) -> None:
    value = {"name": "timm", **SMALL["hiera"]}
    value |= {"model": "vit_tiny_patch16_224", "options": {}} if "options" in change else {}
    with pytest.raises(ValueError, match=rf"^policy\.vision\.{message}"):
        build("vision", value | change, "policy.vision")


def test_an_option_that_a_network_ignores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model

    def lenient(model: str, **options: Any) -> Any:  # as a network with unused **kwargs
        return create(model, **{k: v for k, v in options.items() if not k.startswith("vla_")})

    monkeypatch.setattr(timm, "create_model", lenient)
    value = {"name": "timm", "model": "test_resnet", "image_size": 32}
    with pytest.raises(ValueError, match=r"vision\.options\.vla_depth: .* has no such option"):
        build("vision", value | {"options": {"vla_depth": 3}})


def test_the_proof_passes_and_agrees_with_the_committed_table() -> None:
    for family in ("resnet", "byobnet"):
        verdict = proof._prove(family, representative(family))
        assert verdict.verdict == "right", verdict
        assert not table() or table()[family] == "right"
        assert [c.name for c in verdict.checks][-2:] == ["gradients", "frozen"]


@pytest.mark.slow
@pytest.mark.table
@pytest.mark.parametrize("family", families())
def test_every_family_has_the_verdict_of_the_committed_table(family: str) -> None:
    if not table():
        pytest.skip("no configs/zoo.csv: run vla zoo --prove --all")
    verdict = prove_timm(family)
    assert verdict.verdict == table()[family], verdict


def test_an_encoder_that_mixes_rows_is_not_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forward = TimmEncoder.forward

    def mixed(self: Any, images_BCHW: torch.Tensor) -> torch.Tensor:
        tokens = forward(self, images_BCHW)
        return tokens + tokens.mean(0, keepdim=True)

    monkeypatch.setattr(TimmEncoder, "forward", mixed)
    state = torch.get_rng_state()
    for frozen in (False, True):
        with pytest.raises(ConfigError, match=r"timm 'resnet' is refused .*: batch equals single"):
            build("vision", {"name": "timm", **SMALL["resnet"], "frozen": frozen})
    assert torch.equal(state, torch.get_rng_state())
    # A saved policy opens.
    build("vision", {"name": "timm", **SMALL["resnet"]}, pretrained=False)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match=r"timm family 'resnt': .*did you mean 'resnet'"):
        prove_timm("resnt")
