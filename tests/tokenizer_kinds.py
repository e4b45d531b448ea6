"""Small tokenizers that split numbers as well-known ones do."""

from __future__ import annotations

from typing import Any

from policies import WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def tokenizer_of(kind: str) -> Any:
    """Small tokenizers that behave like well-known ones."""
    corpus = [f" {w}" for w in WORDS] * 20 + [f" {n}" for n in range(100)] * 3
    if kind == "wordpiece":  # BERT marks continuations
        raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        raw.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=220, special_tokens=["[UNK]", "<eos>", "<pad>"], show_progress=False
        )
    elif kind == "sentencepiece":  # Llama 2, T5: words include their space
        raw = Tokenizer(models.Unigram())
        raw.pre_tokenizer, raw.decoder = (
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            decoders.Metaspace(prepend_scheme="first"),
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=200,
            special_tokens=["<unk>", "<eos>", "<pad>"],
            unk_token="<unk>",
            show_progress=False,
        )
    else:  # GPT-2: only common numbers are single tokens; SmolLM2, Qwen: one token per digit
        raw = Tokenizer(models.BPE())
        digits = [pre_tokenizers.Digits(individual_digits=True)] if kind == "digits" else []
        raw.pre_tokenizer = pre_tokenizers.Sequence(
            [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        raw.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=["<eos>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    raw.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")
