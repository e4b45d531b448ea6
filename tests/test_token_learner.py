"""TokenLearner: weighted sums, heads, positions; patches of the convolutional encoder."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vla.models.connectors.token_learner import TokenLearner
from vla.models.vision.conv import ConvEncoder

WIDTH, SIDE = 8, 4


def learner(**options: int) -> TokenLearner:
    torch.manual_seed(0)
    return TokenLearner(3, 16, **options, in_width=WIDTH, out_width=10)


def test_one_head_gives_the_published_weighted_sums() -> None:
    module, tokens = learner(), torch.randn(2, SIDE**2, WIDTH)
    weights = module.weights(tokens).softmax(1)
    expected = module.project(torch.einsum("bnt,bnd->btd", weights, tokens))
    torch.testing.assert_close(module(tokens), expected)


def test_every_head_has_its_own_weights() -> None:
    module, tokens = learner(heads=2), torch.randn(2, SIDE**2, WIDTH)
    weights = module.weights(tokens).softmax(1).unflatten(2, (3, 2))
    halves = tokens.unflatten(2, (2, WIDTH // 2))
    expected = module.project(torch.einsum("bnth,bnhd->bthd", weights, halves).flatten(2))
    torch.testing.assert_close(module(tokens), expected)


@given(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1))
def test_coordinates_are_the_place_of_the_weights(row: int, column: int) -> None:
    module = learner(coordinates=True)
    tokens = torch.zeros(1, SIDE**2, WIDTH)
    tokens[0, row * SIDE + column, 0] = 1.0
    module.weights = torch.nn.Linear(WIDTH, 3, bias=False)  # all weight on the cell above
    torch.nn.init.constant_(module.weights.weight, 100.0)
    module.project = torch.nn.Identity()
    found = module(tokens)[0, :, -2:] / math.sqrt(3)
    expected = [(place + 0.5) * 2 / SIDE - 1 for place in (row, column)]
    torch.testing.assert_close(found, torch.tensor([expected] * 3))


def test_coordinates_need_a_square_grid() -> None:
    with pytest.raises(ValueError, match=r"connector\.coordinates: 6 image tokens are no square"):
        learner(coordinates=True)(torch.zeros(1, 6, WIDTH))


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_divide_the_width(heads: int) -> None:
    with pytest.raises(ValueError, match=rf"connector\.heads={heads}: must divide .* 8"):
        learner(heads=heads)


def test_patches_replace_the_first_stage() -> None:
    encoder = ConvEncoder((16, 32), (0, 0), 32, patch=4)
    assert encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 16, 32)
    with pytest.raises(ValueError, match=r"image_size=36: must be a multiple of 8"):
        ConvEncoder((16, 32), (0, 0), 36, patch=4)
    with pytest.raises(ValueError, match=r"widths=\[4, 32\]: must be multiples of 8"):
        ConvEncoder((4, 32), (0, 0), 32)
    with pytest.raises(ValueError, match=r"vision\.patch=1: at least 2"):
        ConvEncoder((16, 32), (0, 0), 32, patch=1)


def test_the_median_of_large_images_removes_the_background() -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder((16, 32), (0, 0), 192)
    dark, light = (torch.full((1, 3, 192, 192), v, dtype=torch.uint8) for v in (20, 90))
    for image in (dark, light):
        image[:, :, 50:60, 50:60] += 60
    torch.testing.assert_close(encoder(dark), encoder(light), atol=1e-5, rtol=1e-5)
