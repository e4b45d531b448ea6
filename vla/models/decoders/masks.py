"""Attention masks of packed texts and of queries, from the mask functions of the model itself.

Transformers builds the mask of each kind of layer (full, sliding window, chunks) from a function of
two columns. ``structured_attention`` evaluates that function as if each text stood alone;
``both_directions`` adds pairs of positions to the result. The layers of a training step on a CPU
share one additive mask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask


@dataclass
class TextStructure:
    """Which of L new positions belong together, after P cached positions; T = P + L.

    index_BT: column that each position has in a sequence of its text alone.
    visible_BLT: bool, True where a position (row) belongs to the same text as another (column), or
        to the image of that text.
    both_BLT: bool, True where positions attend to each other in both directions; None: nowhere.
    """

    index_BT: torch.Tensor
    visible_BLT: torch.Tensor
    both_BLT: torch.Tensor | None = None

    def fits(self, *, q_length: int, kv_length: int, **options: Any) -> bool:
        """False for a mask of other positions, such as those of an encoder."""
        end = self.index_BT.shape[1]
        return (
            q_length == self.visible_BLT.shape[1]
            and int(options.get("q_offset", 0)) + q_length == end
            and options.get("kv_offset", 0) + kv_length == end
        )

    def mask_function(self, of_family: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The mask function of a kind of layer, applied to each text alone."""
        past = self.index_BT.shape[1] - self.visible_BLT.shape[1]
        index_query = self.index_BT[:, None, past:, None]  # all L queries, see ``fits``

        def allowed(batch: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
            first = self.index_BT.shape[1] - key.shape[-1]  # a cache may lack the first columns
            index_key = self.index_BT[:, None, None, first:]
            mask = of_family(batch, head, index_query, index_key)
            if self.both_BLT is not None:
                reverse = of_family(batch, head, index_key, index_query)
                mask = mask | (self.both_BLT[:, None, :, first:] & reverse)
            return mask & self.visible_BLT[:, None, :, first:]

        return allowed


_STRUCTURE: ContextVar[TextStructure | None] = ContextVar("text_structure", default=None)
# Positions (K, L) that attend to each other in both directions.
_PARALLEL: ContextVar[torch.Tensor | None] = ContextVar("parallel", default=None)


@contextmanager
def structured_attention(structure: TextStructure) -> Iterator[None]:
    """Masks that models build inside the block follow ``structure``.

    Give the model a 2-D attention mask of ones, so that it builds its masks itself.
    """
    _register_shared_mask()
    token = _STRUCTURE.set(structure)
    try:
        yield
    finally:
        _STRUCTURE.reset(token)


@contextmanager
def both_directions(parallel_KL: torch.Tensor | None) -> Iterator[None]:
    """Positions (K, L), bool, attend to each other in both directions inside the block.

    The masks of sequences of K x L tokens that the model creates there contain these pairs.
    """
    token = _PARALLEL.set(parallel_KL)
    try:
        yield
    finally:
        _PARALLEL.reset(token)


def _changed(interface: Callable[..., Any]) -> Callable[..., Any]:
    """A mask builder of transformers that follows the current structure and parallel positions."""

    @functools.wraps(interface)
    def build(*args: Any, **options: Any) -> Any:
        structure, parallel = _STRUCTURE.get(), _PARALLEL.get()
        if structure is not None and structure.fits(**options):
            options["mask_function"] = structure.mask_function(options["mask_function"])
            options |= _WHOLE | {"use_vmap": False}
        if parallel is None or not _covers(parallel, **options):
            return interface(*args, **options)
        found = interface(*args, **(options | _WHOLE))
        pairs = (parallel[:, :, None] & parallel[:, None, :])[:, None]
        return found | pairs if found.dtype == torch.bool else found.masked_fill(pairs, 0.0)

    return build


# Options with which transformers never leaves out a mask.
_WHOLE = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}


def _covers(
    parallel: torch.Tensor, *, batch_size: int, q_length: int, kv_length: int, **options: Any
) -> bool:
    """False for a mask of other sequences, such as those of a vision encoder."""
    return (batch_size, q_length) == tuple(parallel.shape) and kv_length == q_length


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where a bool mask is True, else minus infinity; kept with the mask for the next layer."""
    found = getattr(mask, "additive", None)
    if found is None or found.dtype != dtype:
        found = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, float("-inf"))
        mask.additive = found  # type: ignore[attr-defined]
    return found


@functools.cache
def _register_shared_mask() -> None:
    """Let the layers of a training step on a CPU share one additive mask.

    Otherwise torch makes an additive mask in each layer.
    """
    from transformers import AttentionInterface  # slow, and imported with a model anyway
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    @functools.wraps(sdpa_attention_forward)
    def shared(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *args: Any, **kw: Any
    ) -> Any:
        if (
            attention_mask is not None
            and attention_mask.dtype == torch.bool
            and attention_mask.device.type == "cpu"
            and torch.is_grad_enabled()
            and module.training
            and kw.get("position_bias") is None
            and not torch.compiler.is_compiling()
        ):
            attention_mask = _additive(attention_mask, query.dtype)
        return sdpa_attention_forward(module, query, key, value, attention_mask, *args, **kw)

    AttentionInterface.register("sdpa", shared)


AttentionMaskInterface.register("sdpa", _changed(sdpa_mask))
AttentionMaskInterface.register("eager", _changed(eager_mask))
