"""FSDP2: the weights of a policy, divided among processes."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

_WHOLE = StateDictOptions(full_state_dict=True)
_LARGE = 1_000_000  # parameters of a layer that is worth a group of its own


def shard(policy: Any, mesh: Any, layers: bool) -> None:
    """Divide the parameters among the processes of the mesh.

    Args:
        policy: the policy.
        mesh: the processes.
        layers: gather each large layer of a list of layers for its own pass. All processes have to
            run it equally often in each step. False: gather all weights for a whole step.
    """
    for layer in large_layers(policy) if layers else []:
        fully_shard(layer, mesh=mesh)
    fully_shard(policy, mesh=mesh)
    for method in ("training_step", "validation_step"):
        register_fsdp_forward_method(policy, method)


def large_layers(policy: nn.Module) -> list[nn.Module]:
    """Layers in lists of layers that are worth a group of their own."""
    return [
        layer
        for module in policy.modules()
        if isinstance(module, nn.ModuleList)
        for layer in module
        if sum(p.numel() for p in layer.parameters()) >= _LARGE and _has_forward(layer)
    ]


def _has_forward(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


@torch.no_grad()
def gather_weights(policy: nn.Module) -> None:
    """Replace divided parameters by whole ones, on the CPU; every process has to call it."""
    whole: dict[int, nn.Parameter] = {}
    for module in policy.modules():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, DTensor):
                if id(parameter) not in whole:  # tied weights stay tied
                    full = parameter.full_tensor().cpu()
                    whole[id(parameter)] = nn.Parameter(full, parameter.requires_grad)
                module._parameters[name] = whole[id(parameter)]


class FullySharded(ModelParallelStrategy):
    """FSDP2 that reads the checkpoints of any other strategy, and writes ones that others read.

    Lightning's own class mixes up the states of parameters if the optimiser has several groups.
    """

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the file on every process, and keep this process's part of it."""
        path = self.broadcast(checkpoint_path)
        checkpoint = torch.load(path, "cpu", weights_only=True, mmap=True)
        assert self.model is not None
        set_model_state_dict(self.model, checkpoint.pop("state_dict"), options=_WHOLE)
        names = {id(p): n for n, p in self.model.named_parameters()}
        for optimizer, state in zip(
            self.optimizers, checkpoint.pop("optimizer_states"), strict=True
        ):
            named = _by_name(state, optimizer, names)
            set_optimizer_state_dict(self.model, optimizer, named, options=_WHOLE)
        return {"state_dict": {}, "optimizer_states": []} | checkpoint


def _by_name(state: dict[str, Any], optimizer: Any, names: dict[int, str]) -> dict[str, Any]:
    """An optimiser's state with names of parameters instead of numbers."""
    name_of: dict[Any, str] = {}
    groups = []
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        own = [names[id(p)] for p in group["params"]]
        name_of |= dict(zip(saved["params"], own, strict=True))
        groups.append(saved | {"params": own})
    return {"state": {name_of[k]: v for k, v in state["state"].items()}, "param_groups": groups}
