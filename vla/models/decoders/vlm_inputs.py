"""Inputs of whole vision-language models: images placed in prompts, then target items."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vla.errors import ConfigError
from vla.models.decoders.base import Prefix

_GREY = 127
_QUESTION = "Q: what is this? A:"
# Token type of generated text, where it is not that of text in the prompt.
_GENERATED_TYPE = {"paligemma": 1}  # prompt 0 attends in both directions, suffix 1 does not


@dataclass(frozen=True)
class Placement:
    """How the processor of a family takes images.

    markup: text that stands for one image in a prompt.
    nested: images are lists, one per prompt.
    """

    markup: str
    nested: bool


def image_token_id(config: Any) -> int | None:
    """Id of image tokens in the text of a model; None if it has none."""
    names = ("image_token_id", "image_token_index", "media_placeholder_token_id")
    found = (getattr(config, name, None) for name in names)
    return next((i for i in found if isinstance(i, int)), None)


def find_placement(processor: Any, image_token: int | None) -> Placement:
    """The first placement for which the processor gives pixels and image tokens.

    The chat template names the markup of an image; without one, the special tokens do.

    Args:
        processor: of the model.
        image_token: id of image tokens in the text; None if the model has none.

    Raises:
        ConfigError: the processor cannot place an image in a prompt.
    """
    errors = []
    images = [[torch.full((3, 64, 64), 127, dtype=torch.uint8)] for _ in range(2)]
    for placement in [Placement(m, n) for m in _markups(processor) for n in (True, False)]:
        prompts = [placement.markup + p for p in (_QUESTION, "A:")]
        try:
            out = process(processor, placement, images, prompts)
        except Exception as error:  # a processor may raise anything
            errors.append(f"{placement.markup!r}: {type(error).__name__}: {error}")
            continue
        pixels = [k for k, v in out.items() if v.is_floating_point()]
        ids = out.get("input_ids", torch.zeros(0, 0))
        placed = image_token is None or bool((ids == image_token).any(-1).all())
        if pixels and len(ids) == 2 and placed:
            return placement
        errors.append(f"{placement.markup!r}: no image in the prompt")
    reason = errors[0].splitlines()[0][:160]
    raise ConfigError(f"{type(processor).__name__} cannot place an image in a prompt ({reason})")


def _markups(processor: Any) -> list[str]:
    """Candidates for the text that stands for one image."""
    tokenizer = processor.tokenizer
    image = getattr(processor, "image_token", None) or getattr(tokenizer, "image_token", None)
    found = [_template_markup(processor)]
    start, end = "<|vision_start|>", "<|vision_end|>"
    if image and start in tokenizer.get_vocab():
        found.append(start + str(image) + end)
    names = ("fake_image_token", "boi_token", "image_placeholder_token", "start_image_token")
    found += [image, *(getattr(processor, name, None) for name in names), ""]
    return list(dict.fromkeys(m for m in found if isinstance(m, str)))


def _template_markup(processor: Any) -> str | None:
    """What the chat template writes before a text for one image; None without a template."""
    text = {"type": "text", "text": _QUESTION}
    try:
        with_image, without = (
            processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
            for content in ([{"type": "image"}, text], [text])
        )
    except Exception:  # no template, or one that fails for this message
        return None
    head, plain = with_image.partition(_QUESTION)[0], without.partition(_QUESTION)[0]
    return head.removeprefix(plain) if head.startswith(plain) and head != plain else None


def images_of_texts(
    prefix: Prefix, image_index_K: torch.Tensor, attend_image_K: torch.Tensor | None
) -> list[list[torch.Tensor]]:
    """The images (C, H, W) of every text; grey ones for texts that must not attend to theirs."""
    assert prefix.images_BVCHW is not None
    images = prefix.images_BVCHW.index_select(0, image_index_K)
    if attend_image_K is not None:
        grey = torch.full_like(images, _GREY)
        images = torch.where(attend_image_K[:, None, None, None, None], images, grey)
    return [list(some.unbind()) for some in images.cpu()]


def with_token_types(lm: Any, processor: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs with the token types that some models need and their processors omit."""
    name = "mm_token_type_ids"
    if name in inputs or name not in inspect.signature(type(lm).forward).parameters:
        return inputs
    types = torch.tensor(processor.create_mm_token_type_ids(inputs["input_ids"].tolist()))
    return inputs | {name: types}


def process(
    processor: Any,
    placement: Placement,
    images: Sequence[Sequence[torch.Tensor]],
    texts: Sequence[str],
) -> dict[str, torch.Tensor]:
    """The processor's tensors for images (C, H, W) and texts, padded on the right.

    Raises:
        ConfigError: the processor takes one image per text, and a text has several.
    """
    if not placement.nested and any(len(some) != 1 for some in images):
        raise ConfigError(
            f"{type(processor).__name__} takes one image per prompt; "
            "use one camera (data.window.cameras) and data.window.history: 1"
        )
    given = [list(some) if placement.nested else some[0] for some in images]
    options = {"return_tensors": "pt", "padding": True, "padding_side": "right"}
    with warnings.catch_warnings():  # PaliGemma's processor converts tensors to numpy arrays
        warnings.simplefilter("ignore", DeprecationWarning)
        out = processor(images=given, text=list(texts), **options)
    return {k: v for k, v in out.items() if isinstance(v, torch.Tensor) and k != "labels"}


@dataclass
class VLMInputs:
    """K padded sequences of L tokens in the stack that writes: what precedes the items, items.

    arguments: of the model's forward pass.
    ids_KL: token ids.
    lengths_K: tokens before the items.
    item_KL: bool, True for items.
    valid_KL: bool, False for padding.
    wide: names of arguments (K, L, ...) with values of every token.
    """

    arguments: dict[str, Any]
    ids_KL: torch.Tensor
    lengths_K: torch.Tensor
    item_KL: torch.Tensor
    valid_KL: torch.Tensor
    wide: tuple[str, ...] = ()


def append_items(
    processed: dict[str, torch.Tensor],
    items: Sequence[Sequence[int]],
    pad: int,
    model_type: str,
    start: int | None,
) -> VLMInputs:
    """Inputs of the model for prompts of the processor, each followed by its items.

    Args:
        processed: tensors of the processor, on one device.
        items: token ids; ``pad`` stands for an embedding that is set later.
        pad: id of padding.
        model_type: of the model's configuration.
        start: first token of the decoder of an encoder-decoder model, which writes the items; None
            for a model of one stack.
    """
    prompt = processed["input_ids"]
    seen = processed.get("attention_mask", torch.ones_like(prompt))
    if not bool((seen.diff(dim=1) <= 0).all()):
        raise ConfigError("the processor pads on the left; set tokenizer.padding_side: right")
    if start is not None:
        prompt, seen = prompt.new_full((len(items), 1), start), seen.new_ones((len(items), 1))
    lengths = seen.sum(1)
    counts = torch.tensor([len(i) for i in items], device=prompt.device)
    column = torch.arange(int((lengths + counts).max()), device=prompt.device)[None]
    valid = column < (lengths + counts)[:, None]
    item = valid & (column >= lengths[:, None])
    ids = _append(prompt, lengths, column.shape[1], pad)
    flat = [i for some in items for i in some]
    ids[item] = torch.tensor(flat, dtype=ids.dtype, device=ids.device)
    if start is not None:
        arguments = dict(processed) | {"decoder_input_ids": ids}
        return VLMInputs(arguments, ids, lengths, item, valid)
    own = {"input_ids": ids, "attention_mask": valid.long()}
    for name, tensor in processed.items():
        if name not in own and tensor.shape[:2] == prompt.shape and not name.startswith("pixel"):
            fill = _GENERATED_TYPE.get(model_type, 0) if tensor.ndim == 2 else None
            own[name] = _append(tensor, lengths, column.shape[1], fill)
            if fill:
                own[name][~item & ~(column < lengths[:, None])] = 0
    wide = tuple(name for name, tensor in own.items() if tensor.ndim > 2)
    return VLMInputs(dict(processed) | own, ids, lengths, item, valid, wide)


def _append(
    tensor: torch.Tensor, lengths: torch.Tensor, width: int, fill: int | None
) -> torch.Tensor:
    """A tensor (K, S, ...) with ``width`` columns; None fills with the last valid column."""
    rows = torch.arange(len(tensor), device=tensor.device)
    last = tensor[rows, lengths - 1][:, None]
    column = torch.arange(width, device=tensor.device)
    index = column.clamp(max=tensor.shape[1] - 1)
    behind = (column >= lengths[:, None]).reshape(len(tensor), width, *[1] * (tensor.ndim - 2))
    return torch.where(behind, last if fill is None else last.new_full((), fill), tensor[:, index])
