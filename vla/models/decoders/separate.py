"""Execution of texts: together, or in groups for models that padding or other texts change."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from vla.models.decoders.base import DecodingState, Prefix
from vla.models.decoders.language import LanguageModel
from vla.models.decoders.proof import Execution, Verdict, require
from vla.models.decoders.text import encode

log = logging.getLogger(__name__)


class TextDecoder(LanguageModel, ABC):
    """A language model that implements ``Decoder``; subclasses run one group of texts.

    execution: ``packed`` runs all texts in one pass, ``separate`` each group of texts in its own.
        The rows of a group have prompts of equal length.
    """

    execution: Execution = "packed"
    drafts = True  # False: the start-up proof found that tokens cannot be dropped
    keeps_rows_apart = True
    pads_right = False  # padding on the right of a text does not change it

    def accept(self, verdict: Verdict) -> Verdict:
        """Run texts as the start-up proof found; the same verdict.

        Raises:
            ConfigError: the family is refused.
        """
        self.execution = require(verdict).execution
        self.drafts = verdict.drafts
        if self.execution == "separate":
            log.info("%s: one sequence per text (slower)", verdict.family)
        return verdict

    @property
    def takes_drafts(self) -> bool:
        """See ``Decoder``; recurrent layers cannot drop a token."""
        return self.drafts and self.execution == "packed"

    def encode_texts(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None,
        parallel: bool = False,
    ) -> torch.Tensor:
        """See ``Decoder.encode_texts``."""
        if self.execution == "packed":
            return self._encode(
                prefix, image_index_K, prompts, target_ids, attend_image_K, queries_KQD, parallel
            )
        attend = [True] * len(prompts) if attend_image_K is None else attend_image_K.tolist()
        lengths = self._lengths(prompts)
        sizes = [(n, len(t)) for n, t in zip(lengths, target_ids, strict=True)]
        queries = 0 if queries_KQD is None else queries_KQD.shape[1]
        states: dict[int, torch.Tensor] = {}
        for texts in _groups(attend if self.pads_right else list(zip(attend, sizes, strict=True))):
            hidden = self._encode(
                prefix.select(image_index_K[texts].tolist()),
                torch.arange(len(texts), device=image_index_K.device),
                [prompts[k] for k in texts],
                [target_ids[k] for k in texts],
                None if attend_image_K is None else attend_image_K[texts],
                None if queries_KQD is None else queries_KQD[texts],
                parallel,
            )
            counts = [len(target_ids[k]) + queries + 1 for k in texts]
            states |= dict(zip(texts, hidden.split(counts), strict=True))
        return torch.cat([states[k] for k in range(len(prompts))])

    def prefill(
        self, prefix: Prefix, prompts: Sequence[str], proposals: Sequence[Sequence[int]] = ()
    ) -> tuple[DecodingState, torch.Tensor]:
        """See ``Decoder.prefill``."""
        groups = [] if self.execution == "packed" else _groups(self._lengths(prompts))
        if len(groups) < 2:
            return self._prefill(prefix, prompts, proposals or [[] for _ in prompts])
        parts: list[tuple[list[int], DecodingState]] = []
        hidden: dict[int, torch.Tensor] = {}
        for rows in groups:
            some_prompts = [prompts[k] for k in rows]
            state, some = self._prefill(prefix.select(rows), some_prompts, [[] for _ in rows])
            parts.append((rows, state))
            hidden |= dict(zip(rows, some, strict=True))
        nothing = prefix.tokens_BND.new_zeros((prefix.batch_size, 0))
        whole = DecodingState(None, nothing, nothing, prefix, {"parts": parts})
        return whole, torch.stack([hidden[k] for k in range(len(prompts))])

    def decode_step(self, state: DecodingState, ids_BL: torch.Tensor) -> torch.Tensor:
        """See ``Decoder.decode_step``."""
        if "parts" not in state.extra:
            return self._decode_step(state, ids_BL)
        hidden: dict[int, torch.Tensor] = {}
        for rows, part in state.extra["parts"]:
            hidden |= dict(zip(rows, self._decode_step(part, ids_BL[rows]), strict=True))
        return torch.stack([hidden[k] for k in range(len(ids_BL))])

    def _lengths(self, prompts: Sequence[str]) -> list[int]:
        """Numbers of tokens of the prompts."""
        return [len(encode(self.tokenizer, prompt)) for prompt in prompts]

    @abstractmethod
    def _encode(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None,
        queries_KQD: torch.Tensor | None,
        parallel: bool,
    ) -> torch.Tensor:
        """``encode_texts`` of one group."""

    @abstractmethod
    def _prefill(
        self, prefix: Prefix, prompts: Sequence[str], proposals: Sequence[Sequence[int]]
    ) -> tuple[DecodingState, torch.Tensor]:
        """``prefill`` of one group."""

    @abstractmethod
    def _decode_step(self, state: DecodingState, ids_BL: torch.Tensor) -> torch.Tensor:
        """``decode_step`` of one group."""

    @abstractmethod
    def keep(self, state: DecodingState, count_B: torch.Tensor) -> None:
        """See ``Decoder.keep``."""


def _groups(keys: Sequence[Hashable]) -> list[list[int]]:
    """Indices of equal keys, in the order of the first ones."""
    found: dict[Any, list[int]] = {}
    for k, key in enumerate(keys):
        found.setdefault(key, []).append(k)
    return list(found.values())
