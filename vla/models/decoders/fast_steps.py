"""Faster forms of a decoder's pass: a graph without Python, and compiled layers."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from vla.models.decoders.language import cache_argument

# (embeddings, positions, mask, start) -> hidden states of the new columns
Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class TracedStep:
    """A pass as a TorchScript graph: the same operations without Python between them.

    One graph is for all numbers of columns above one, another one for a single column.

    Args:
        step: the pass; its first call, which creates the cache, is not traced.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self._graphs: dict[bool, Step] = {}

    def __call__(self, *given: torch.Tensor) -> torch.Tensor:
        """The hidden states, bit for bit those of ``step``."""
        single = given[0].shape[1] == 1
        graph = self._graphs.get(single)
        if graph is not None:
            with torch.jit.optimized_execution(False):  # the optimiser changes the rounding
                return graph(*given)
        hidden = self.step(*given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are constants in the graph
            self._graphs[single] = torch.jit.trace(self.step, given, check_trace=False)
        return hidden


class _LayerCache:
    """The part of a static cache that one layer uses."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, start: torch.Tensor) -> None:
        self.keys, self.values, self.start = keys, values, start

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *others: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new columns from ``start`` on; all columns."""
        at = torch.arange(keys.shape[-2], device=keys.device) + self.start
        self.keys.index_copy_(2, at, keys)
        self.values.index_copy_(2, at, values)
        return self.keys, self.values


class CompiledLayers:
    """A pass whose layers are compiled; layers of equal structure share one program.

    Compiling takes the time of one layer, however deep the model is.

    Args:
        step: the pass.
        layers: the transformer blocks.
        cache: the ``StaticCache`` that ``step`` uses.
    """

    def __init__(self, step: Step, layers: Sequence[nn.Module], cache: Any) -> None:
        self.step, self.layers, self.cache = step, layers, cache
        self._forwards: list[Any] = []

    def __call__(self, *given: torch.Tensor) -> torch.Tensor:
        """The hidden states."""
        if not self._forwards:  # the cache exists after the first pass
            self.step(*given)
            run = torch.compile(_run_layer, dynamic=True)
            self._forwards = [
                _with_own_cache(layer, part, run)
                for layer, part in zip(self.layers, self.cache.layers, strict=True)
            ]
        for layer, forward in zip(self.layers, self._forwards, strict=True):
            layer.__dict__["forward"] = forward
        try:
            return self.step(*given)
        finally:
            for layer in self.layers:
                del layer.__dict__["forward"]


def _run_layer(
    layer: nn.Module,
    place: tuple[int, str],
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """One layer on its part of the cache, which stands at a place of its arguments."""
    at, name = place
    if at < len(args):
        return layer(*args[:at], _LayerCache(*parts), *args[at + 1 :], **options)
    return layer(*args, **(options | {name: _LayerCache(*parts)}))


def _with_own_cache(layer: nn.Module, part: Any, run: Callable[..., Any]) -> Callable[..., Any]:
    """The forward pass of a layer in which ``run`` gives it a cache of its own.

    The copy of the layer shares its weights. Its index is 0, so that all layers are one program.
    """
    shared: dict[int, Any] = {id(t): t for t in (*layer.parameters(), *layer.buffers())}
    own = copy.deepcopy(layer, shared)
    parts: Any = own.modules()
    for module in parts:
        if isinstance(getattr(module, "layer_idx", None), int):
            module.layer_idx = 0
    name = cache_argument(layer)
    place = list(inspect.signature(layer.forward).parameters).index(name), name

    def forward(*args: Any, **options: Any) -> Any:
        return run(own, place, (part.keys, part.values, part.cumulative_length), args, options)

    return forward
