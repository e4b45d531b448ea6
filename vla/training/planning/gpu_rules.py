"""The rules of a GPU for tensors without numbers: its autocast, and its fused attention."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# Operations that torch computes in float32 under autocast on a GPU. On a CPU most of them keep
# bfloat16. https://docs.pytorch.org/docs/stable/amp.html
_NAMES = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p"),
    *("reciprocal", "rsqrt", "sinh", "tan", "pow", "__pow__", "__rpow__", "softplus"),
    *("layer_norm", "native_layer_norm", "group_norm", "norm", "normalize", "cosine_similarity"),
    *("cross_entropy", "nll_loss", "kl_div", "l1_loss", "smooth_l1_loss", "huber_loss"),
    *("mse_loss", "binary_cross_entropy_with_logits", "interpolate", "dist", "cdist", "renorm"),
    *("logsumexp", "softmax", "log_softmax", "cumprod", "cumsum", "prod", "sum"),
)
_FLOAT32 = {
    getattr(where, name)
    for where in (torch, torch.Tensor, functional)
    for name in _NAMES
    if hasattr(where, name)
}
_ALIGNED = 16  # columns of an attention mask are padded to a multiple


class GpuRules(TorchFunctionMode):
    """Within CPU autocast, the float32 operations of GPU autocast; and fused attention."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in _FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(_float32, (args, kwargs))
        return func(*args, **kwargs)


def _float32(x: Any) -> Any:
    half = isinstance(x, torch.Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if half else x


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The memory-efficient kernel, which keeps no scores; masks become a matrix of numbers."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(groups, -3) for x in (key, value))
    bias = None
    if attn_mask is not None:
        columns = -(-attn_mask.shape[-1] // _ALIGNED) * _ALIGNED
        if attn_mask.dtype == torch.bool or columns != attn_mask.shape[-1]:
            bias = query.new_zeros((*attn_mask.shape[:-1], columns))[..., : attn_mask.shape[-1]]
            if attn_mask.requires_grad:
                bias = bias + attn_mask.to(query.dtype)
        else:
            bias = attn_mask.to(query.dtype)
        bias = bias.expand(*query.shape[:-1], key.shape[-2])
    out: torch.Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )[0]
    return out
