"""Codecs, normalisation and token ids of actions round-trip."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import WORDS
from tokenizer_kinds import tokenizer_of
from transformers import PreTrainedTokenizerFast

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.models.actions.bins import QuantileBins, UniformBins
from vla.models.actions.constrained_decoding import ActionConstraint, ActionTokenRules
from vla.models.actions.fast import FastCodec
from vla.models.actions.normalise import Normaliser
from vla.models.actions.vocabulary import ActionVocabulary, VocabularyError
from vla.models.decoders.text import continuation
from vla.models.decoders.tokenizer import train_tokenizer
from vla.types import ActionSpace


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.sampled_from([2, 16, 256]))
@settings(deadline=None)
def test_uniform_bins_round_trip_within_one_bin_and_keep_the_ends(
    values: list[float], count: int
) -> None:
    bins, x = UniformBins(count), torch.tensor(values)
    index = bins.index(x)
    assert bool(((bins.value(index) - x).abs() <= 2.0 / count + 1e-6).all())
    assert torch.equal(bins.index(bins.value(torch.arange(count))), torch.arange(count))
    assert bins.value(torch.tensor([0, count - 1])).tolist() == [-1.0, 1.0]


def test_quantile_bins_resolve_dense_regions_and_keep_repeated_values() -> None:
    torch.manual_seed(0)
    x = torch.stack(
        [torch.randn(5000) * 0.05, torch.where(torch.rand(5000) < 0.9, -1.0, 1.0)], 1
    ).clamp(-1, 1)
    bins = QuantileBins(
        64, action_dim=2, quantiles=torch.quantile(x, torch.linspace(0, 1, 257), dim=0)
    )
    back, plain = bins.value(bins.index(x)), UniformBins(64)
    assert torch.equal(back[:, 1], x[:, 1])  # binary dimensions are exact
    assert (back - x)[:, 0].abs().median() < 0.3 * (plain.value(plain.index(x)) - x)[
        :, 0
    ].abs().median()
    counts = torch.bincount(bins.index(x)[:, 0], minlength=64)
    assert counts.max() < 2.0 * counts.float().mean()
    with pytest.raises(ValueError, match="pack the data again"):
        QuantileBins(64, action_dim=2)


def smooth_chunks(count: int, horizon: int = 16, dims: int = 3) -> torch.Tensor:
    """Smooth trajectories, as robots execute them."""
    g = torch.Generator().manual_seed(0)
    time = torch.linspace(0, 1, horizon)[None, :, None]
    phase, speed, size = (torch.rand((count, 1, dims), generator=g) for _ in range(3))
    return size * torch.sin(2 * torch.pi * (phase + speed * time))


def test_fast_compresses_and_every_allowed_sequence_decodes() -> None:
    chunks = smooth_chunks(3000)
    codec = FastCodec(512, action_dim=3, horizon=16, chunks=chunks[:2500])
    held_out = chunks[2500:]
    symbols = codec.encode(held_out, [16] * len(held_out))
    error = (codec.decode(symbols) - held_out).abs()
    assert error.max() <= 16**0.5 / 20 + 1e-6 and error.mean() < 0.03
    assert (
        sum(map(len, symbols)) / len(symbols) < 48 / 3
    )  # at least three times shorter than one token per number
    rng = random.Random(0)
    for _ in range(50):
        written: list[int] = []
        while following := codec.following(written):
            written.append(rng.choice(following))
        assert codec.decode([written]).shape == (1, 16, 3)
    again = FastCodec(512, action_dim=3, horizon=16)
    with pytest.raises(ValueError, match="fast is fitted to actions"):
        again.encode(held_out, [16] * len(held_out))
    again.load_state_dict(codec.state_dict())
    assert again.encode(held_out, [16] * len(held_out)) == symbols


def test_normaliser_modes_and_constant_dimensions() -> None:
    space = ActionSpace(
        ("x", "still", "grip"), ("m", "m", "1"), (-1.0, -1.0, 0.0), (1.0, 1.0, 1.0), ("grip",)
    )
    stats = {
        "q01": [-0.1, 0.5, 0.2],
        "q99": [0.3, 0.5, 0.9],
        "min": [-0.1, 0.5, 0.2],
        "max": [0.3, 0.5, 0.9],
    }
    n = Normaliser(space, stats, "quantiles")
    low, high = n(torch.tensor([-0.1, 0.5, 0.0])), n(torch.tensor([0.3, 0.5, 1.0]))
    assert torch.allclose(low, torch.tensor([-1.0, 0.0, -1.0]), atol=1e-6) and torch.allclose(
        high, torch.tensor([1.0, 0.0, 1.0]), atol=1e-6
    )
    assert torch.allclose(
        n.inverse(n(torch.tensor([0.2, 0.5, 1.0]))), torch.tensor([0.2, 0.5, 1.0]), atol=1e-6
    )
    stats |= {"mean": [0.1, 0.5, 0.5], "std": [0.05, 0.0, 0.5], "max": [9.0, 0.5, 0.9]}
    z = Normaliser(space, stats, "z_score", {"still": "identity"})
    assert torch.allclose(
        z(torch.tensor([0.25, 0.7, 1.0])), torch.tensor([1.0, 0.7, 1.0]), atol=1e-5
    )
    stats["q01"], stats["q99"] = (
        [0.1, 0.5, 0.2],
        [0.101, 0.5, 0.9],
    )  # rarely moves, but far: quantiles would scale it up
    assert float(
        Normaliser(space, stats, "quantiles")(torch.tensor([4.45, 0.5, 0.0]))[0]
    ) == pytest.approx(0.0, abs=1e-5)
    with pytest.raises(
        ValueError, match=r"normalise_dims\.x2: no such action dim; choices: x, still, grip"
    ):
        Normaliser(space, stats, "bounds", {"x2": "identity"})
    with pytest.raises(ValueError, match="needs action statistics"):
        Normaliser(space, None, "quantiles")


def assert_round_trip(tokenizer: Any, token_assignment: Any, symbols: list[int]) -> None:
    """Push the tokens of ``symbols``: each must be allowed, and the symbols are returned."""
    codec = UniformBins(256, action_dim=len(symbols))
    token_rules = ActionTokenRules(
        codec,
        ActionVocabulary(tokenizer, 256, token_assignment, WORDS),
        tokenizer.eos_token_id,
        LAYOUTS["rt2"],
    )
    constraint = ActionConstraint(token_rules)
    for token in token_rules.targets(symbols):
        assert not constraint.done and token in constraint.allowed().tolist()
        constraint.push(token)
    assert constraint.done and constraint.symbols == symbols


@pytest.mark.parametrize("kind", ["bytes", "digits", "wordpiece", "sentencepiece"])
@pytest.mark.parametrize("token_assignment", ["integers", "overwrite", "extra"])
def test_every_tokenizer_round_trips_or_the_error_names_an_alternative(
    kind: str, token_assignment: str, caplog: pytest.LogCaptureFixture
) -> None:
    symbols = [1, 128, 91, 241, 5, 101, 127, 0]
    tokenizer = tokenizer_of(kind)
    if (kind, token_assignment) == ("wordpiece", "overwrite"):
        with pytest.raises(VocabularyError, match="ordinary ids, 256 are needed; choose extra"):
            assert_round_trip(tokenizer, token_assignment, symbols)
        return
    if (kind, token_assignment) == ("sentencepiece", "overwrite"):
        with pytest.raises(VocabularyError, match="ordinary ids, 256 are needed; choose extra"):
            assert_round_trip(tokenizer, token_assignment, symbols)
        return
    assert_round_trip(tokenizer, token_assignment, symbols)
    assert ("writes numbers as up to" in caplog.text) == (token_assignment == "integers")


def test_added_tokens_that_split_are_refused() -> None:
    class Splitting(PreTrainedTokenizerFast):
        def encode(self, text: str, **options: Any) -> list[int]:
            return super().encode(text.replace("<action_", "< action_"), **options)

    tokenizer = Splitting(
        tokenizer_object=tokenizer_of("bytes")._tokenizer, eos_token="<eos>", pad_token="<pad>"
    )
    with pytest.raises(VocabularyError, match="not as written; choose overwrite"):
        ActionVocabulary(tokenizer, 256, "extra")


def test_ambiguous_numbers_are_refused() -> None:
    """Without spaces, "1" "2" and "12" are the same string."""

    class Spaceless(PreTrainedTokenizerFast):
        def encode(self, text: str, **options: Any) -> list[int]:
            return super().encode(text.replace(" ", ""), **options)

    tokenizer = Spaceless(
        tokenizer_object=tokenizer_of("digits")._tokenizer, eos_token="<eos>", pad_token="<pad>"
    )
    with pytest.raises(VocabularyError, match=r"cannot be distinguished; choose extra"):
        ActionVocabulary(tokenizer, 256, "integers")


def test_overwritten_ids_are_the_least_used() -> None:
    tokenizer = train_tokenizer(WORDS, 1200)
    ids = ActionVocabulary(tokenizer, 256, "overwrite", WORDS).single_ids.tolist()
    used = {i for w in WORDS for i in continuation(tokenizer, f" {w}")}
    assert (
        not used & set(ids)
        and not set(tokenizer.all_special_ids) & set(ids)
        and len(set(ids)) == 256
    )


def test_integers_are_single_tokens_and_extra_tokens_work() -> None:
    tok = train_tokenizer(WORDS, 800)
    vocabulary = ActionVocabulary(tok, 256, "integers")
    symbols = [1, 128, 91, 241, 5, 101, 127, 0]
    assert vocabulary.single and vocabulary.text(symbols) == " 1 128 91 241 5 101 127 0"
    assert [vocabulary.symbol((t,)) for t in continuation(tok, vocabulary.text(symbols))] == symbols
    with pytest.raises(VocabularyError, match="are not an action"):
        vocabulary.symbol(continuation(tok, " apple"))
    before = len(tok)
    extra = ActionVocabulary(tok, 301, "extra")
    assert len(tok) == before + 301 and [
        extra.symbol((t,)) for t in extra.tokens([*range(301)])
    ] == [*range(301)]
