"""A byte-level BPE tokenizer trained on the words of the corpus, with one token for every integer up to 255."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vla.pretrained import explain, locate

INTEGERS = 256
PROMPT_WORDS = ["Q:", "A:", "Action:", "what", "action", "should", "the", "robot", "take", "to"]


def train_tokenizer(words: Counter[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train on word counts; numbers and the prompt's words are weighted so that each becomes one token.

    Raises:
        ValueError: ``vocab_size`` is too small to hold the bytes and the integers.
    """
    if vocab_size < 256 + 2 * INTEGERS:
        raise ValueError(f"decoder.vocab_size={vocab_size}: at least {256 + 2 * INTEGERS} to hold bytes and integers")
    heavy = 10 * max(words.values(), default=1) + 1000
    counts = dict(words) | {str(n): heavy for n in range(INTEGERS)} | dict.fromkeys(PROMPT_WORDS, heavy)

    def corpus() -> Iterator[list[str]]:
        # counts matter only by order of size to BPE's merges: the square root keeps this quick
        for word, count in sorted(counts.items()):
            yield [f" {word}"] * max(1, min(60, round(count**0.5)))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def load_tokenizer(name: str | Path) -> Any:
    """A tokenizer from a local folder, ``package:`` path or hub name (see ``vla.pretrained``); one without padding pads with its end.

    Raises:
        PretrainedError: it is not here.
    """
    from transformers import AutoTokenizer

    where = locate(str(name))
    with explain(str(name)):
        tokenizer = AutoTokenizer.from_pretrained(where.path, **where.options)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
