"""FAST (arXiv 2501.09747): a chunk's trajectory as a byte-pair-encoded string of rounded cosine coefficients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.fft import dct, idct
from tokenizers import Tokenizer, models, trainers
from torch import nn

from vla.config import register

_FIRST = 0x4E00  # coefficients become characters from here on; any printable, unsplit block does


@register("codec", "fast")
class FastCodec(nn.Module):
    """DCT over time, round(scale x coefficient), low frequencies of all dims first, then BPE trained on the data's own chunks.

    Symbols stand for one or several coefficients; a chunk is whole when exactly H x A of them are there, so every sequence that can be written
    decodes. The error in a number is at most that of rounding: sqrt(H) / (2 scale) in normalised units, and far less on average.

    Args:
        vocab_size: of the BPE. scale: of the coefficients before rounding (the paper: 10).
        chunks: (wired) (n, H, A) normalised chunks to train on; a saved policy has the result.
    """

    def __init__(
        self,
        vocab_size: int = 1024,
        scale: float = 10.0,
        *,
        action_dim: int = 1,
        horizon: int = 1,
        chunks: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.symbols, self.scale, self.action_dim, self.horizon = vocab_size, scale, action_dim, horizon
        self.length: int | None = None
        self.limit = math.ceil(scale * math.sqrt(horizon))  # an orthonormal DCT of H numbers in [-1, 1] stays within sqrt(H)
        if vocab_size < 2 * self.limit + 1:
            raise ValueError(
                f"codec.vocab_size={vocab_size}: at least {2 * self.limit + 1} for scale {scale} and horizon {horizon}"
            )
        self.register_buffer("bpe", torch.zeros(0, dtype=torch.uint8))
        self.bpe: torch.Tensor
        if chunks is not None:
            self._use(self._train(chunks))

    def _train(self, chunks: torch.Tensor) -> str:
        alphabet = [chr(_FIRST + v) for v in range(2 * self.limit + 1)]
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=self.symbols, initial_alphabet=alphabet, show_progress=False, special_tokens=[], max_token_length=10_000
        )
        tokenizer.train_from_iterator(self._strings(chunks), trainer)
        return tokenizer.to_str()

    def _use(self, text: str) -> None:
        self.bpe = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.bpe.device)
        self.tokenizer = Tokenizer.from_str(text)
        self.pieces: list[str] = [str(self.tokenizer.id_to_token(n)) for n in range(self.tokenizer.get_vocab_size())]
        sizes = np.array([len(p) for p in self.pieces])
        total = self.action_dim * self.horizon
        # which symbols may follow when so many coefficients are left
        self._fitting = [tuple(np.flatnonzero(sizes <= left).tolist()) for left in range(total + 1)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        held = state_dict.get(f"{prefix}bpe")
        if held is not None:
            self._use(bytes(held.tolist()).decode())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _strings(self, unit_KHA: torch.Tensor) -> list[str]:
        coefficients = dct(unit_KHA.cpu().double().numpy(), axis=1, norm="ortho")
        rounded = np.clip(np.rint(coefficients * self.scale), -self.limit, self.limit).astype(int) + self.limit
        return ["".join(chr(_FIRST + v) for v in row) for row in rounded.reshape(len(rounded), -1)]

    def encode(self, unit_KHA: torch.Tensor, valid_K: list[int]) -> list[list[int]]:
        """Symbols of whole chunks (steps past an episode's end are what the pipeline repeats there)."""
        return [self.tokenizer.encode(text).ids for text in self._strings(unit_KHA)]

    def decode(self, symbols: list[list[int]]) -> torch.Tensor:
        """Whole chunks of symbols to (B, H, A)."""
        text = ["".join(self.pieces[s] for s in row) for row in symbols]
        rounded = np.array([[ord(c) - _FIRST - self.limit for c in row] for row in text], dtype=np.float64)
        coefficients = rounded.reshape(-1, self.horizon, self.action_dim) / self.scale
        return torch.from_numpy(idct(coefficients, axis=1, norm="ortho")).float()

    def following(self, written: list[int]) -> tuple[int, ...] | None:
        """See ``NumberCodec.following``."""
        left = self.action_dim * self.horizon - sum(len(self.pieces[s]) for s in written)
        return self._fitting[left]
