"""FAST (arXiv 2501.09747): byte-pair-encoded strings of rounded cosine coefficients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.fft import dct, idct
from tokenizers import Tokenizer, models, trainers
from torch import nn

from vla.config import register

# Coefficients become characters from this code point on: a large block that BPE does not split.
FIRST_CODE = 0x4E00


@register("codec", "fast")
class FastCodec(nn.Module):
    """DCT over time, rounding, low frequencies of all dimensions first, then BPE.

    The BPE is trained on ``chunks`` (n, H, A), normalised; a saved policy contains it. A symbol
    stands for one or several coefficients. A chunk is complete when it has exactly H x A of them,
    so every sequence that can be generated decodes. The error of a number is at most
    sqrt(H) / (2 scale) in normalised units.

    Raises:
        ValueError: ``vocab_size`` is smaller than the number of coefficient values.
    """

    def __init__(
        self,
        vocab_size: int = 1024,  # symbols of the BPE
        scale: float = 10.0,  # factor of the coefficients before rounding (the paper: 10)
        *,
        action_dim: int = 1,
        horizon: int = 1,
        chunks: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.symbols, self.scale = vocab_size, scale
        self.action_dim, self.horizon = action_dim, horizon
        self.length: int | None = None
        # An orthonormal DCT of H numbers in [-1, 1] stays within sqrt(H).
        self.limit = math.ceil(scale * math.sqrt(horizon))
        if vocab_size < 2 * self.limit + 1:
            raise ValueError(
                f"codec.vocab_size={vocab_size}: at least {2 * self.limit + 1} "
                f"for scale {scale} and horizon {horizon}"
            )
        self.register_buffer("bpe", torch.zeros(0, dtype=torch.uint8))
        self.bpe: torch.Tensor
        if chunks is not None:
            self._set_tokenizer(self._train(chunks))

    def _train(self, chunks: torch.Tensor) -> str:
        alphabet = [chr(FIRST_CODE + v) for v in range(2 * self.limit + 1)]
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=self.symbols,
            initial_alphabet=alphabet,
            show_progress=False,
            special_tokens=[],
            max_token_length=10_000,
        )
        tokenizer.train_from_iterator(self._strings(chunks), trainer)
        return tokenizer.to_str()

    def _set_tokenizer(self, text: str) -> None:
        self.bpe = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.bpe.device)
        self.tokenizer = Tokenizer.from_str(text)
        self.pieces: list[str] = [
            str(self.tokenizer.id_to_token(n)) for n in range(self.tokenizer.get_vocab_size())
        ]
        sizes = np.array([len(p) for p in self.pieces])
        total = self.action_dim * self.horizon
        # Symbols that may follow when n coefficients are missing, for every n.
        self._fitting = [tuple(np.flatnonzero(sizes <= n).tolist()) for n in range(total + 1)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}bpe")
        if saved is not None:
            self._set_tokenizer(bytes(saved.tolist()).decode())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _strings(self, normalized_actions_KHA: torch.Tensor) -> list[str]:
        coefficients = dct(normalized_actions_KHA.cpu().double().numpy(), axis=1, norm="ortho")
        rounded = np.clip(np.rint(coefficients * self.scale), -self.limit, self.limit)
        codes = rounded.astype(int) + self.limit
        return ["".join(chr(FIRST_CODE + v) for v in row) for row in codes.reshape(len(codes), -1)]

    def encode(self, normalized_actions_KHA: torch.Tensor, valid_K: list[int]) -> list[list[int]]:
        """Symbols of whole chunks; steps after the episode's end are those of the data pipeline.

        Raises:
            ValueError: the codec was built without ``chunks``, and no weights were loaded.
        """
        if not len(self.bpe):
            raise ValueError("codec: fast is fitted to actions; build the policy with chunks=")
        return [self.tokenizer.encode(text).ids for text in self._strings(normalized_actions_KHA)]

    def decode(self, symbols: list[list[int]]) -> torch.Tensor:
        """Symbols of whole chunks to actions (B, H, A)."""
        text = ["".join(self.pieces[s] for s in row) for row in symbols]
        rounded = np.array(
            [[ord(c) - FIRST_CODE - self.limit for c in row] for row in text], dtype=np.float64
        )
        coefficients = rounded.reshape(-1, self.horizon, self.action_dim) / self.scale
        return torch.from_numpy(idct(coefficients, axis=1, norm="ortho")).float()

    def following(self, generated: list[int]) -> tuple[int, ...] | None:
        """See ``NumberCodec.following``."""
        missing = self.action_dim * self.horizon - sum(len(self.pieces[s]) for s in generated)
        return self._fitting[missing]
