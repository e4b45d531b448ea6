"""Actions: bins, statistics and token ids, there and back."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.actions.bins import UniformBins
from vla.actions.normalise import Normaliser
from vla.actions.vocabulary import ActionVocabulary, VocabularyError
from vla.decoders.text import encode
from vla.decoders.tokenizer import train_tokenizer
from vla.schema import ActionSpace

WORDS = Counter(["pick", "up", "the", "red", "apple", "banana", "where", "is", "what", "kind", "of", "thing", "fruit"] * 50)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.sampled_from([2, 16, 256]))
@settings(deadline=None)
def test_bins_round_trip_within_a_bin_and_keep_the_ends(values: list[float], count: int) -> None:
    bins, x = UniformBins(count), torch.tensor(values)
    index = bins.encode(x)
    assert bool(((bins.decode(index) - x).abs() <= 2.0 / count + 1e-6).all())
    assert torch.equal(bins.encode(bins.decode(torch.arange(count))), torch.arange(count))
    assert bins.decode(torch.tensor([0, count - 1])).tolist() == [-1.0, 1.0]


def test_normaliser_modes_and_dead_dims() -> None:
    space = ActionSpace(("x", "still", "grip"), ("m", "m", "1"), (-1.0, -1.0, 0.0), (1.0, 1.0, 1.0), ("grip",))
    stats = {"q01": [-0.1, 0.5, 0.2], "q99": [0.3, 0.5, 0.9], "min": [-0.1, 0.5, 0.2], "max": [0.3, 0.5, 0.9]}
    n = Normaliser(space, stats, "quantiles")
    low, high = n(torch.tensor([-0.1, 0.5, 0.0])), n(torch.tensor([0.3, 0.5, 1.0]))
    assert torch.allclose(low, torch.tensor([-1.0, 0.0, -1.0]), atol=1e-6) and torch.allclose(
        high, torch.tensor([1.0, 0.0, 1.0]), atol=1e-6
    )
    assert torch.allclose(n.inverse(n(torch.tensor([0.2, 0.5, 1.0]))), torch.tensor([0.2, 0.5, 1.0]), atol=1e-6)
    with pytest.raises(ValueError, match="needs action statistics"):
        Normaliser(space, None, "quantiles")


def test_integers_are_single_tokens_and_extra_tokens_work() -> None:
    tok = train_tokenizer(WORDS, 800)
    vocabulary = ActionVocabulary(tok, 256, "integers")
    bins = torch.tensor([1, 128, 91, 241, 5, 101, 127, 0])
    assert vocabulary.text(bins) == " 1 128 91 241 5 101 127 0"
    assert torch.equal(vocabulary.bins_of(torch.tensor(encode(tok, vocabulary.text(bins)))), bins)
    with pytest.raises(VocabularyError, match="is not an action"):
        vocabulary.bins_of(torch.tensor([encode(tok, " apple")[0]]))
    with pytest.raises(VocabularyError, match=r"writes 256 as .* tokens, not one; choose assign: extra"):
        ActionVocabulary(tok, 301, "integers")
    before = len(tok)
    extra = ActionVocabulary(tok, 301, "extra")
    assert len(tok) == before + 301 and torch.equal(extra.bins_of(extra.tokens(torch.arange(301))), torch.arange(301))
