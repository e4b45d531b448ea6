"""From hidden states to logits."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import nn

from vla.models.decoders.trainable_embeddings import TrainableEmbeddings

_FEW = 1024  # ids of a set whose rows are kept
# Ids of a set on the device, their rows of the output matrix, and their bias.
_Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


@functools.cache
def _reads(kind: Any, name: str) -> bool:
    """True if the source of a model class names a field of its configuration.

    Aya Vision and LLaVA do not scale or cap their logits, although their language models do.
    """
    families = [c for c in kind.__mro__ if c.__module__.startswith("transformers.models.")]
    return not families or any(name in inspect.getsource(c) for c in families)


class HiddenToLogits:
    """The output layer with the scaling and capping of the model's family.

    keeps_rows: keep the rows of small sets of ids; the weights must not change any more.
    """

    def __init__(self, lm: Any) -> None:
        self.keeps_rows = False
        self._rows: dict[int, _Rows] = {}
        self._own: dict[int, torch.Tensor] = {}  # the sets, which keeps their ids valid
        kind: Any = type(lm)
        text = getattr(lm.config, "decoder", None) or lm.config.get_text_config()

        def field(name: str, default: float | None) -> Any:
            """A field of the configuration, if this model uses it after its output layer."""
            return (getattr(text, name, None) or default) if _reads(kind, name) else default

        self.cap = field("final_logit_softcapping", None)  # Gemma 2 and 3
        self.scale = field("logit_scale", 1.0) / field("logits_scaling", 1.0)  # Cohere, Granite
        # T5 with tied embeddings
        tied = text.model_type == "switch_transformers" and lm.config.tie_word_embeddings
        if getattr(text, "scale_decoder_outputs", tied or text.model_type == "umt5"):
            self.scale *= text.d_model**-0.5

    def __call__(
        self,
        lm: Any,
        hidden: torch.Tensor,
        ids: torch.Tensor | None = None,
        trainable: TrainableEmbeddings | None = None,
    ) -> torch.Tensor:
        """Hidden states (..., D) to logits (..., vocabulary) or (..., len(ids))."""
        head = lm.get_output_embeddings()
        if ids is None:
            logits = head(hidden)
        else:
            ids, rows, bias = self._rows.get(id(ids)) or self._read_rows(head, ids)
            logits = nn.functional.linear(hidden, rows, bias)
        if trainable is not None:
            logits = trainable.logits(hidden, logits, ids, head.bias)
        logits = logits * self.scale if self.scale != 1.0 else logits
        fixed = getattr(lm, "final_logits_bias", None)  # Marian
        if fixed is not None:
            logits = logits + (fixed[0] if ids is None else fixed[0, ids])
        return (logits / self.cap).tanh() * self.cap if self.cap else logits

    def _read_rows(self, head: Any, ids: torch.Tensor) -> _Rows:
        """The ids on the device of the output layer, their rows of its matrix, and their bias."""
        key, own = id(ids), ids
        ids = ids.to(head.weight.device)
        found = ids, head.weight[ids], None if head.bias is None else head.bias[ids]
        if self.keeps_rows and len(ids) <= _FEW:
            self._own[key], self._rows[key] = own, found
        return found
