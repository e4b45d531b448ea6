"""timm networks: checked options, and a trial that shows shapes and weights without influence."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import timm
import torch
from torch import nn

from vla.config.registry import nearest
from vla.models.pretrained import load_pretrained
from vla.models.vision.names import no_such_model

# Arguments of timm.create_model by which it loads weights or code from other places.
_LOADING = (
    *("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_custom_load"),
    *("pretrained_filter_fn", "kwargs_filter", "cache_dir", "state_dict"),
    *("hf_hub_id", "url", "file"),
)
_OWNED = {  # arguments of timm.create_model -> the option that sets them
    "pretrained": "weights",
    "checkpoint_path": "weights",
    "img_size": "image_size",
    "num_classes": "none: the encoder has no classifier",
    "features_only": "layer",
    "out_indices": "layer",
    "in_chans": "none: images have 3 channels",
}


def check_name(model: str) -> None:
    """Raise ValueError with the nearest names if timm has no such model or no such weights."""
    name, _, tag = model.partition(".")
    tagged = timm.list_models(pretrained=True)
    if timm.is_model(model) and (not tag or model in tagged):
        return
    if timm.is_model(model):
        tags = [n for n in tagged if n.partition(".")[0] == name]
        raise ValueError(
            f"vision.model={model!r}: timm has no weights {tag!r} for {name}; "
            f"it has {', '.join(tags) or 'none'}"
        )
    reason = no_such_model(model, [*timm.list_models(), *tagged])
    raise ValueError(f"vision.model={model!r}: {reason}")


def timm_model(model: str, image_size: int, download: bool, options: dict[str, Any]) -> Any:
    """A timm model without classifier for inputs of this size; weights of the hub, or random ones.

    Raises:
        ValueError: the model has no such option, or no such size.
        PretrainedError: the weights cannot be downloaded.
    """
    if image_size < 1:
        raise ValueError(f"vision.image_size={image_size}: expected at least 1 px")
    for name in options:
        if name in _LOADING:
            raise ValueError(
                f"vision.options.{name}: loads weights or code; use vision.weights, which accepts "
                "a .safetensors file"
            )
        if name in _OWNED:
            raise ValueError(
                f"vision.options.{name}: the encoder sets it; use vision.{_OWNED[name]}"
                if not _OWNED[name].startswith("none")
                else f"vision.options.{name}: cannot be changed ({_OWNED[name][6:]})"
            )
    if options:
        _check_options(model, options)
    if download:
        return load_pretrained(model, lambda: _create(model, image_size, True, options))
    return _create(model, image_size, False, options)


def _create(model: str, image_size: int, pretrained: bool, options: dict[str, Any]) -> Any:
    arguments = {"pretrained": pretrained, "num_classes": 0, **options}
    try:
        return timm.create_model(model, img_size=image_size, **arguments)
    except TypeError:  # convolutional networks accept any size and have no such argument
        pass
    except (AssertionError, ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        if pretrained:
            raise
        raise ValueError(_wrong_size(model, image_size, error)) from error
    try:
        return timm.create_model(model, **arguments)
    except TypeError as error:
        raise ValueError(f"vision.options={options}: timm's {model} says: {error}") from error


def _check_options(model: str, options: dict[str, Any]) -> None:
    """Refuse arguments that the network does not have, or silently ignores."""
    with torch.device("meta"):
        net = timm.create_model(model, num_classes=0)
        known = _parameters(type(net)) | _parameters(timm.model_entrypoint(model))
        for name in options:
            try:
                timm.create_model(model, num_classes=0, **{name: options[name]})
            except TypeError as error:
                if f"'{name}'" not in str(error):
                    continue  # the value may fit only together with other options
            except Exception:  # likewise; the construction with all options decides
                continue
            else:
                if name in known or not _ignores_unknown(model):
                    continue
            raise ValueError(
                f"vision.options.{name}: timm's {model} has no such option{nearest(name, known)}"
            )


def _ignores_unknown(model: str) -> bool:
    """True for a network that accepts an argument of any name."""
    try:
        timm.create_model(model, num_classes=0, vla_no_such_option=None)
    except Exception:
        return False
    return True


def _parameters(function: Any) -> set[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(function).parameters.values()
    return {p.name for p in found if p.kind in kinds} - _OWNED.keys() - {"self", "cfg"}


def _wrong_size(model: str, image_size: int, error: Exception) -> str:
    own = (timm.get_pretrained_cfg_value(model, "input_size") or (3, 224))[-1]
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return (
        f"vision.image_size={image_size}: timm's {model} has no features for this size ({reason}); "
        f"its own size is {own}"
    )


class _Features(nn.Module):
    """A network whose forward pass is that of the encoder."""

    def __init__(self, net: Any, layer: Any, norm: bool) -> None:
        super().__init__()
        self.net, self.layer, self.norm = net, layer, norm

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return features(self.net, images_BCHW, self.layer, self.norm)


def features(net: Any, images_BCHW: torch.Tensor, layer: Any, norm: bool) -> torch.Tensor:
    """The feature map (B, D, H, W) of one layer."""
    maps: list[torch.Tensor] = net.forward_intermediates(
        images_BCHW, indices=layer, norm=norm, output_fmt="NCHW", intermediates_only=True
    )
    return maps[0]


def normalises(net: Any) -> bool:
    """False for networks that cannot apply their last norm to features (Hiera)."""
    try:
        net.forward_intermediates(torch.empty(0), norm=True, output_fmt="NCHW")
    except AssertionError as error:
        return "norm" not in str(error)
    except Exception:  # the empty image
        return True
    return True


def _on_meta(module: nn.Module) -> nn.Module:
    """A copy on the meta device, without memory for weights; the module itself keeps its state."""
    tensors = {
        id(t): nn.Parameter(torch.empty_like(t, device="meta"))
        if isinstance(t, nn.Parameter)
        else torch.empty_like(t, device="meta")
        for t in [*module.parameters(), *module.buffers()]
    }
    return copy.deepcopy(module, tensors)


def try_network(net: Any, model: str, image_size: int, layer: Any, width: int, norm: bool) -> int:
    """Side of the feature map; weights without influence on it are frozen.

    Two images pass through the network forwards and backwards on the meta device, which has
    shapes and no values. A network with operations that need values computes on its own device.

    Raises:
        ValueError: the network fails for this size, or its features have another width.
    """
    module = _Features(net, layer, norm)
    parameters = dict(module.named_parameters())
    shape = (2, 3, image_size, image_size)
    training = net.training
    net.eval()
    try:
        on_meta = _on_meta(module)
        with torch.enable_grad():
            map_BDHW = on_meta(torch.zeros(shape, device="meta"))
        used = dict(on_meta.named_parameters())
    except Exception:
        device = next(iter(parameters.values())).device
        try:
            with torch.enable_grad():
                map_BDHW, used = module(torch.zeros(shape, device=device)), dict(parameters)
        except Exception as error:
            raise ValueError(_wrong_size(model, image_size, error)) from error
    finally:
        net.train(training)
    if map_BDHW.shape[:2] != (2, width) or map_BDHW.shape[2] != map_BDHW.shape[3]:
        problem = ValueError(f"features {tuple(map_BDHW.shape)} are not (2, {width}, side, side)")
        raise ValueError(_wrong_size(model, image_size, problem))
    with torch.enable_grad():
        grads = torch.autograd.grad(map_BDHW.sum(), list(used.values()), allow_unused=True)
    for name, grad in zip(used, grads, strict=True):
        if grad is None:
            parameters[name].requires_grad_(False)
    return map_BDHW.shape[2]
