"""Which token id means which bin. Proves at start-up that every action is a single token and round-trips."""

from __future__ import annotations

from typing import Any, Literal

import torch

Assignment = Literal["integers", "extra"]


class VocabularyError(ValueError):
    """The tokenizer cannot write actions this way; the message says what to choose instead."""


class ActionVocabulary:
    """Bins to token ids.

    assign: ``integers`` uses the tokenizer's own single tokens for 0..bins-1 (RT-2-PaLI-X); ``extra`` adds new tokens.

    Raises:
        VocabularyError: a number is not one token, or the written action does not come back.
    """

    def __init__(self, tokenizer: Any, bins: int, assign: Assignment = "integers") -> None:
        self.tokenizer, self.bins, self.assign = tokenizer, bins, assign
        if assign == "extra":
            tokenizer.add_tokens([f"<action_{b}>" for b in range(bins)])
            ids = [tokenizer.convert_tokens_to_ids(f"<action_{b}>") for b in range(bins)]
        else:
            ids = []
            for b in range(bins):
                pieces = tokenizer.encode(f" {b}", add_special_tokens=False)
                if len(pieces) != 1:
                    raise VocabularyError(
                        f"head.assign=integers: the tokenizer writes {b} as {len(pieces)} tokens, not one; choose assign: extra"
                    )
                ids.append(pieces[0])
        if len(set(ids)) != bins:
            raise VocabularyError(
                f"head.assign={assign}: only {len(set(ids))} distinct ids for {bins} bins; choose another assignment"
            )
        self.ids = torch.tensor(ids)
        self._bin_of = {i: b for b, i in enumerate(ids)}
        sample = [*range(0, bins, max(1, bins // 7)), bins - 1]
        text = self.text(torch.tensor(sample))
        if assign == "integers" and self.bins_of(torch.tensor(tokenizer.encode(text, add_special_tokens=False))).tolist() != sample:
            raise VocabularyError(f"head.assign=integers: {text!r} does not tokenise back to itself; choose assign: extra")

    def tokens(self, bins: torch.Tensor) -> torch.Tensor:
        """Bin indices (...) to token ids (...)."""
        return self.ids.to(bins.device)[bins]

    def bins_of(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (...) to bins; an id that is no action is an error, never a zero."""
        flat = ids.flatten().tolist()
        illegal = [i for i in flat if i not in self._bin_of]
        if illegal:
            raise VocabularyError(f"token id {illegal[0]} ({self.tokenizer.convert_ids_to_tokens(illegal[0])!r}) is not an action")
        return torch.tensor([self._bin_of[i] for i in flat], device=ids.device).reshape(ids.shape)

    def text(self, bins: torch.Tensor) -> str:
        """The action string of a row of bins, as RT-2 writes it: ``1 128 91 241 5 101 127 0``."""
        if self.assign == "extra":
            return "".join(f"<action_{b}>" for b in bins.tolist())
        return " " + " ".join(str(b) for b in bins.tolist())
