"""Actions that a token head would choose at every target token, for training metrics."""

from __future__ import annotations

from typing import Any

import torch

from vla.models.actions.vocabulary import ActionVocabulary
from vla.models.decoders.base import Decoder


class TeacherForcing:
    """Most likely actions given the true tokens before each number."""

    def __init__(self, codec: Any, vocabulary: ActionVocabulary) -> None:
        self.codec, self.vocabulary = codec, vocabulary

    @torch.no_grad()
    def __call__(
        self,
        decoder: Decoder,
        hidden_MD: torch.Tensor,
        symbols: list[list[int]],
        mask_KH: torch.Tensor,
    ) -> torch.Tensor | None:
        """Normalised actions (K, H, A); None for codecs without one symbol per number.

        Args:
            hidden_MD: hidden states before the target tokens of all actions.
            symbols: target symbols of every action.
            mask_KH: bool, True for steps inside the episode.
        """
        if self.codec.length is None:
            return None
        if self.vocabulary.single:
            ids = self.vocabulary.single_ids.to(hidden_MD.device)
            best = decoder.logits(hidden_MD, ids).argmax(-1)
        else:
            best = self._most_likely_symbols(decoder, hidden_MD, symbols)
        actions = torch.zeros((*mask_KH.shape, self.codec.action_dim), device=hidden_MD.device)
        values = self.codec.value(best.reshape(-1, self.codec.action_dim))
        actions[mask_KH] = values.to(actions)
        return actions

    def _most_likely_symbols(
        self, decoder: Decoder, hidden_MD: torch.Tensor, symbols: list[list[int]]
    ) -> torch.Tensor:
        """For every target number: the most likely number with as many tokens."""
        legal = self.vocabulary.legal.to(hidden_MD.device)
        column = {int(i): n for n, i in enumerate(legal.tolist())}
        score = decoder.logits(hidden_MD, legal).float().log_softmax(-1)
        pieces = self.vocabulary.pieces
        best, start = [], 0
        for row in symbols:
            for symbol in row:
                size = len(pieces[symbol])
                choices = [s for s, p in enumerate(pieces) if len(p) == size]
                columns = [[column[i] for i in pieces[s]] for s in choices]
                table = torch.tensor(columns, device=hidden_MD.device)
                total = score[start : start + size].gather(1, table.T).sum(0)
                best.append(choices[int(total.argmax())])
                start += size
            start += 1  # the end-of-text token after the last number
        return torch.tensor(best, device=hidden_MD.device)
