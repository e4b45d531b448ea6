"""Tokenizers: trained on the corpus's words, or pretrained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vla.models.pretrained import load_pretrained, locate
from vla.models.prompts import PROMPT_WORDS

INTEGERS = 256  # 0..255 are single tokens


def train_tokenizer(words: Counter[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on word counts.

    Integers up to 255 and the words of the prompt get high counts, so that each is one token.

    Raises:
        ValueError: ``vocab_size`` is too small for the bytes and the integers.
    """
    if vocab_size < 256 + 2 * INTEGERS:
        raise ValueError(
            f"decoder.vocab_size={vocab_size}: at least {256 + 2 * INTEGERS} for bytes and integers"
        )
    high = 10 * max(words.values(), default=1) + 1000
    integers = {str(n): high for n in range(INTEGERS)}
    counts = dict(words) | integers | dict.fromkeys(PROMPT_WORDS, high)

    def corpus() -> Iterator[list[str]]:
        # BPE merges depend on the order of magnitude of counts: the square root is faster.
        for word, count in sorted(counts.items()):
            yield [f" {word}"] * max(1, min(60, round(count**0.5)))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def load_tokenizer(name: str | Path) -> Any:
    """A tokenizer from a folder, ``package:`` path or hub name (see ``vla.models.pretrained``).

    Without a padding token it pads with its end-of-text token.

    Raises:
        PretrainedError: the tokenizer is missing.
    """
    from transformers import AutoTokenizer

    source = locate(str(name))
    tokenizer = load_pretrained(
        str(name),
        lambda: AutoTokenizer.from_pretrained(
            source.path, trust_remote_code=False, **source.options
        ),
    )
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
