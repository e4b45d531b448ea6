"""Tensors without numbers: a policy of any size is built and trained for a step in seconds.

Large float tensors have a shape and a dtype only (``torch``'s fake tensors). Integers and truth
values are computed, because the number of target tokens depends on them. A number that would be
read from a fake tensor is 1, a condition true.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
_SMALL = 4096  # numbers; smaller tensors are real while a policy is built
_MAKERS = {"empty", "zeros", "ones", "full", "randn", "rand", "normal", "empty_strided"}
_INDEXED = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


class Building(TorchDispatchMode):
    """Within this mode large float tensors are made on the meta device, without memory."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(x, torch.Tensor) and x.is_meta for x in tree_iter((args, kwargs))):
            if func is _aten._local_scalar_dense.default:
                return 0.0
            if func is _aten.copy_.default and not args[0].is_meta:
                return args[0]
        elif _makes_large(func, args, kwargs):
            kwargs = kwargs | {"device": torch.device("meta")}
        return func(*args, **kwargs)


class ShapesOnly(TorchDispatchMode):
    """Within this mode results of fake tensors are fake; after ``start`` their memory is counted.

    timeline: bytes of the fake tensors that exist, after each new one; empty before ``start``.
    flops: of the operations since ``start``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.timeline: list[int] = []
        self.flops = 0
        self._used = 0
        self._own: set[int] = set()
        self._seen: dict[int, weakref.ref[Any]] = {}  # by id of the tensor
        self._views: dict[int, int] = {}  # storage -> tensors that use it

    def start(self, policy: nn.Module) -> None:
        """Begin a new timeline; the policy's tensors are not part of it, nor views of them."""
        own = (t for t in (*policy.parameters(), *policy.buffers()) if isinstance(t, FakeTensor))
        self._own = {t.untyped_storage()._cdata for t in own}
        self.timeline, self.flops, self._used = [0], 0, 0
        self._seen, self._views = {}, {}

    def fake_copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A fake tensor of the same shape and dtype on the CPU."""
        with self.fake:
            made = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(made, tensor.requires_grad)
        return made

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(isinstance(x, FakeTensor) for x in tree_iter((args, kwargs))):
            if not _makes_large(func, args, kwargs):
                return func(*args, **kwargs)
        elif func is _aten._local_scalar_dense.default:
            return 1.0
        elif func is _aten.nonzero.default:
            return torch.ones(args[0].shape, dtype=torch.bool).nonzero()
        elif func in _INDEXED:
            args = (args[0], [part for i in args[1] for part in _positions(i)], *args[2:])
        elif func is _aten.copy_.default and not isinstance(args[0], FakeTensor):
            return args[0]
        made: Any = self.fake.__torch_dispatch__(func, types, args, kwargs)
        # FlopCounterMode would split operations such as silu_backward, with many temporary tensors.
        cost = flop_registry.get(func._overloadpacket)
        if cost is not None:
            self.flops += cost(*args, **kwargs, out_val=made)
        for tensor in tree_iter(made):
            if isinstance(tensor, FakeTensor):
                self._count(tensor)
        return made

    def _count(self, tensor: FakeTensor) -> None:
        """Add the storage of a new tensor; it is subtracted when its last tensor is gone."""
        number = id(tensor)
        if not self.timeline or number in self._seen:
            return
        storage, views = tensor.untyped_storage(), self._views
        key, size, seen = storage._cdata, storage.nbytes(), self._seen
        if key in self._own:
            return

        def gone(_: Any) -> None:
            del seen[number]
            views[key] -= 1
            if not views[key]:
                del views[key]
                self._used -= size

        seen[number] = weakref.ref(tensor, gone)
        views[key] = views.get(key, 0) + 1
        if views[key] == 1:
            self._used += size
            self.timeline.append(self._used)


def make_fake(module: nn.Module, mode: ShapesOnly) -> None:
    """Replace all parameters and large buffers by fake tensors; shared ones stay shared.

    Small buffers stay real: with their numbers actions become tokens.
    """
    made: dict[int, Any] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None or not (tensor.is_meta or isinstance(tensor, nn.Parameter)):
                    continue
                if id(tensor) not in made:
                    made[id(tensor)] = mode.fake_copy(tensor)
                tensors[name] = made[id(tensor)]


def _makes_large(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """True if the operation makes a large float tensor of its own."""
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    if not dtype.is_floating_point or func.__name__.partition(".")[0] not in _MAKERS:
        return False
    size = next((a for a in args if isinstance(a, list | tuple)), ())
    return torch.Size(size).numel() > _SMALL if size else False


def _positions(index: Any) -> list[Any]:
    """A mask as positions; of a fake mask all are true."""
    if not isinstance(index, torch.Tensor) or index.dtype != torch.bool:
        return [index]
    mask = torch.ones(index.shape, dtype=torch.bool) if isinstance(index, FakeTensor) else index
    return list(mask.nonzero(as_tuple=True))
