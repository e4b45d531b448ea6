"""Tiny language models with random weights, for the start-up proof."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import torch
from transformers.utils import logging

from vla.models.decoders.tiny import SIZES, VOCABULARY, tiny_config

MAX_PARAMETERS = 20_000_000  # of a tiny model; learned positions and hash tables may be large


class ProofTokenizer:
    """Words as token ids of a tiny vocabulary."""

    pad_token_id, eos_token_id, bos_token_id = 0, 1, None

    def __len__(self) -> int:
        return VOCABULARY

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """One id per word."""
        return [2 + crc32(word.encode()) % (VOCABULARY - 2) for word in text.split()]


def tiny_model(auto: Any, config: Any, run: Callable[[Any, torch.Tensor], Any]) -> Any:
    """A tiny model with random weights whose own forward pass runs.

    Args:
        auto: Auto class of the model.
        config: of the real model.
        run: the forward pass of a model on token ids (1, S).

    Raises:
        Exception: that of the last size, if none works.
    """
    for size in SIZES:
        try:
            torch.manual_seed(0)
            lm = _build(auto, tiny_config(config, size))
            with torch.no_grad():
                randomise(lm)
                run(lm, torch.arange(2, 14)[None])
            return lm
        except Exception as error:  # a size that the family does not allow
            last = error
    raise last


def _build(auto: Any, config: Any) -> Any:
    with torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=False)
        count = sum(p.numel() for p in model.parameters())
    if count > MAX_PARAMETERS:
        raise ValueError(f"a tiny model of this family has {count / 1e6:.0f} M parameters")
    return auto.from_config(config, trust_remote_code=False).float().eval()


@torch.no_grad()
def randomise(lm: Any) -> None:
    """Weights of ordinary size, so that every part of the model changes its logits."""
    for name, parameter in lm.named_parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.ndim >= 2 and name.endswith(("weight", "proj", "bias")):
            # Kernels of images sum over all but the first dimension; experts do not.
            inputs = parameter[0].numel() if parameter.ndim > 3 else parameter.shape[-1]
            torch.nn.init.normal_(parameter, std=inputs**-0.5)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    bias = getattr(lm, "final_logits_bias", None)  # a buffer of BART
    if bias is not None:
        bias.normal_()


@contextmanager
def isolated() -> Iterator[None]:
    """Gradients and no warnings inside the block; random numbers outside do not change."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        logging.set_verbosity(verbosity)
