"""Proof of timm's families: a small model of each, with random weights, is right or refused."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import timm
import torch

from vla.config import registered
from vla.models.decoders.proof import Check, Verdict, cached, one_line, require
from vla.models.vision.names import no_such_model
from vla.models.vision.proof_checks import (
    Failed,
    normalisation,
    random_images,
    separate_rows,
    token_shape,
)

_SIZES = (64, 128, 256)  # px, tried in this order, before the size of the model
_SMALL = ("test", "atto", "femto", "pico", "nano", "050", "035", "xxs", "xxtiny", "xs", "tiny")
_LARGE = ("huge", "giant", "gigantic", "large", "so400m", "xxl", "xl", "base", "medium")


def families() -> list[str]:
    """The modules of timm that define vision networks."""
    return sorted(timm.list_modules())


def representative(family: str) -> str:
    """The smallest model of a family, by parameters, among those whose names suggest it.

    Raises:
        ValueError: timm has no such family.
    """
    if family not in timm.list_modules():
        raise ValueError(f"timm family {family!r}: {no_such_model(family, families())}")

    def rank(name: str) -> tuple[int, list[int], int]:
        size = sum(word in name for word in _LARGE) - 2 * any(word in name for word in _SMALL)
        return size, [int(n) for n in re.findall(r"\d+", name)], len(name)

    sizes = {
        name: _parameters(name) for name in sorted(timm.list_models(module=family), key=rank)[:3]
    }
    return min(sizes, key=lambda name: sizes[name])


def prove_timm(family: str) -> Verdict:
    """The verdict of a family, from the cache or from the checks.

    Raises:
        ValueError: timm has no such family.
    """
    return cached("timm", family, {}, lambda: _prove(family, representative(family)))


def require_family(model: str) -> None:
    """Check that the family of a timm model passes the proof.

    Raises:
        ConfigError: the family is refused; the message names the check.
    """
    require(prove_timm(timm.model_entrypoint(model).__module__.rpartition(".")[2]))


def _prove(family: str, model: str) -> Verdict:
    """See ``prove_timm``; the caller's random numbers, device and gradient mode have no effect."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.device("cpu"),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        torch.manual_seed(0)
        return Verdict("timm", family, tuple(_checks(model)))


def _checks(model: str) -> list[Check]:
    """The checks in order; after one that failed there are no more."""
    checks: list[Check] = []
    found: list[tuple[int, Any]] = []

    def build() -> str:
        found.append(_first_size(model))
        size, encoder = found[0]
        return f"{model} at {size} px, {sum(p.numel() for p in encoder.parameters()) / 1e6:.1f}M"

    steps: dict[str, Callable[[], str]] = {
        "construction": build,
        "shape": lambda: token_shape(*found[0]),
        "batch equals single": lambda: separate_rows(found[0][1]),
        "normalisation": lambda: normalisation(found[0][1], model),
        "other image sizes": lambda: _other_sizes(model, *found[0]),
        "gradients": lambda: _gradients(found[0][1]),
        "frozen": lambda: _frozen(model, found[0][0]),
    }
    for name, step in steps.items():
        try:
            checks.append(Check(name, True, step()))
        except Exception as error:  # of timm, of any class
            reason = str(error) if isinstance(error, Failed) else one_line(error)
            checks.append(Check(name, False, reason))
            break
    return checks


def _encoder(model: str, size: int, **options: Any) -> Any:
    encoder = registered("vision")["timm"]  # the module of the class imports this one
    smaller: dict[str, Any] = {}
    if _parameters(model) > 4e7:  # fewer blocks, where the network has this option
        smaller = {"depth": 2}
    try:
        return encoder(model, size, options=smaller, pretrained=False, **options)
    except ValueError as error:
        if smaller and "vision.options.depth" in str(error):
            return encoder(model, size, pretrained=False, **options)
        raise


@functools.cache
def _parameters(model: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(model, num_classes=0).parameters())


def _first_size(model: str) -> tuple[int, Any]:
    """The smallest size that the network accepts, with more than one token."""
    own = (timm.get_pretrained_cfg_value(model, "input_size") or (3, 224))[-1]
    refused: ValueError | None = None
    for size in (*(s for s in _SIZES if s < own), own):
        try:
            encoder = _encoder(model, size)
            with torch.no_grad():
                tokens = encoder.eval()(random_images(1, size))
            if tokens.shape[1] >= 4:
                _set_batch_statistics(encoder)
                return size, encoder
        except ValueError as error:
            refused = error
    raise refused or Failed(f"{model}: fewer than 4 tokens at {own} px")


@torch.no_grad()
def _set_batch_statistics(encoder: Any) -> None:
    """Means and variances as in a trained network; with 0 and 1 features of some vanish."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches, here one
    encoder.train()(random_images(4, encoder.image_size))
    encoder.eval()


@torch.no_grad()
def _other_sizes(model: str, size: int, encoder: Any) -> str:
    """Images of any size are resized; an encoder of another size is right or refused."""
    count = encoder.eval()(random_images(1, size)).shape[1]
    if encoder(random_images(1, 40, 72)).shape[1] != count:
        raise Failed("the number of tokens follows the size of the recorded image")
    try:
        other = _encoder(model, 2 * size).eval()
    except ValueError:
        return f"{2 * size} px is refused"
    tokens = other(random_images(1, 2 * size))
    if tokens.shape[2] != other.width or not tokens.isfinite().all():
        raise Failed(f"at {2 * size} px tokens are {tuple(tokens.shape)}")
    return f"{tokens.shape[1]} tokens at {2 * size} px"


def _gradients(encoder: Any) -> str:
    tokens = encoder.train()(random_images(2, encoder.image_size))
    (tokens * torch.randn(tokens.shape)).sum().backward()
    trained = [(n, p) for n, p in encoder.named_parameters() if p.requires_grad]
    without = [n for n, p in trained if p.grad is None or not p.grad.isfinite().all()]
    if without or not trained:
        raise Failed(f"{len(without)} of {len(trained)} weights get none, first {without[:1]}")
    frozen = sum(1 for p in encoder.parameters() if not p.requires_grad)
    return f"{len(trained)} weights" + (
        f", {frozen} without influence are frozen" if frozen else ""
    )


def _frozen(model: str, size: int) -> str:
    """No weight or batch statistic of a frozen network changes in a training step."""
    encoder = _encoder(model, size, frozen=True)
    encoder.train()
    encoder.net.eval()  # as in ``BasePolicy.train``
    before = {n: t.clone() for n, t in encoder.net.state_dict().items()}
    tokens = encoder(random_images(2, size))
    learning = [p for p in encoder.parameters() if p.requires_grad]
    if any(p.requires_grad for p in encoder.net.parameters()):
        raise Failed("some weights are still trained")
    if learning:
        tokens.sum().backward()
        torch.optim.SGD(learning, lr=0.1).step()
    changed = [n for n, t in encoder.net.state_dict().items() if not torch.equal(t, before[n])]
    if changed:
        raise Failed(f"{changed[0]} changed")
    return f"{len(before)} tensors stay"
