"""Tiny configurations of any Hugging Face model, for the start-up proof.

A tiny configuration keeps the class, the options and one layer of each kind; widths are small.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from vla.models.decoders.tiny_agreement import agree, shrink_rope
from vla.models.decoders.tiny_tables import (
    DEFAULTS,
    DEPTH,
    FAMILIES,
    FIELDS,
    LANGUAGE_PARTS,
    LAYER_INDICES,
    PATTERNS,
    RANDOM,
)

VOCABULARY = 64
WINDOW = 12  # tokens of a sliding window or a chunk, shorter than the texts of the proof
_MAX_LAYERS = 5
# Fields that do not describe the structure.
_DROPPED = (
    "architectures",
    "transformers_version",
    "_name_or_path",
    "quantization_config",
    "dtype",
    "torch_dtype",
)


@dataclass(frozen=True)
class Size:
    """Widths of a tiny model: ``width`` is the number of channels of the residual stream.

    vlm: the model has parts that are no language models, and its processor's token ids.
    """

    width: int = 32
    heads: int = 2
    kv_heads: int = 1
    head_dim: int = 16
    vlm: bool = False

    def limit(self, kind: str, value: int) -> int:
        """The size of a kind of field in ``tiny_tables``; ``value`` is that of the real model."""
        if kind == "vocabulary" and self.vlm:
            return value
        small = {
            "width": self.width,
            "feed_forward": 2 * self.width,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "rotary_dim": self.head_dim // 2,
            "rank": self.head_dim,
            "state": 8,
            "chunk": 8,
            "window": WINDOW,
            "vocabulary": VOCABULARY,
            "experts": 4,
            "experts_used": min(value, 2),
            "one": 1,
            "capacity": 2,
        }
        return small[kind]


# Sizes that are tried in order, because some families restrict the ratios of their widths.
SIZES = (Size(), Size(kv_heads=2), Size(64, 4, 4, 16), Size(64, 4, 2, 16), Size(128, 4, 4, 32))
VLM_SIZE = Size(96, 2, 1, 48, vlm=True)  # rotary positions in three dimensions need 48


def default_config(family: str) -> Any:
    """The default configuration of a model type, with every kind of layer that it has."""
    return AutoConfig.for_model(family, **DEFAULTS.get(family, {}))


def tiny_config(config: Any, size: Size = SIZES[0]) -> Any:
    """A tiny configuration of the class of ``config``, with the same options."""
    fields = tiny_fields(config, size)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


def tiny_fields(config: Any, size: Size = SIZES[0]) -> dict[str, Any]:
    """The fields of ``tiny_config``; equal fields have equal verdicts.

    Fields of a vision-language model that decide how many tokens an image has are kept, so the
    same processor fits.

    Args:
        config: a Hugging Face configuration, or its fields.
        size: of the tiny model.
    """
    fields = dict(config) if isinstance(config, dict) else config.to_dict()
    family = fields.pop("model_type", None) or type(config).model_type
    return _shrink(fields, size, family, language=not size.vlm) | {"model_type": family}


def set_everywhere(config: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Nested plain data with another value of every field ``name``."""
    return {
        k: set_everywhere(v, name, value) if isinstance(v, dict) else value if k == name else v
        for k, v in config.items()
    }


def _shrink(fields: dict[str, Any], size: Size, family: str, language: bool) -> dict[str, Any]:
    """The fields of a configuration, or of a part, with small sizes and few layers."""
    depths = {n: v for n, v in fields.items() if DEPTH.fullmatch(n) and isinstance(v, int)}
    count = max(depths.values(), default=0)
    kept = _kept_layers(fields, count)
    shared = bool(fields.get("num_kv_shared_layers"))
    if shared and len(kept) < 4:  # as many layers that share the cache of others
        kept = kept * 2
    heads = next((fields[n] for n in FIELDS["heads"] if isinstance(fields.get(n), int)), 0)
    tiny: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _DROPPED:
            continue
        if name in depths:
            tiny[name] = min(value, len(kept))
        elif LAYER_INDICES.fullmatch(name) and isinstance(value, list | tuple):
            tiny[name] = [kept.index(i) for i in value if i in kept]
        elif _per_layer(name, value, count):
            tiny[name] = [_small(name, value[i], size, heads, language) for i in kept]
        elif name == "per_layer_config" and value:
            old = {int(i): v for i, v in value.items()}
            parts = {n: old[i] for n, i in enumerate(kept) if i in old}
            tiny[name] = {n: _shrink(v, size, "", language) for n, v in parts.items()}
        elif isinstance(value, dict) and ("model_type" in value or name.endswith("_config")):
            own = value.get("model_type") or family
            inner = language or name in LANGUAGE_PARTS
            tiny[name] = _shrink(value, size, own, inner) if value else value
        else:
            tiny[name] = _small(name, value, size, heads, language)
    agree(tiny, fields, len(kept))
    if language:
        tiny |= FAMILIES.get(family, {})
    shrink_rope(tiny, size.head_dim, sections=size.vlm)
    return tiny


def _per_layer(name: str, value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count > 1


def _kept_layers(fields: dict[str, Any], count: int) -> list[int]:
    """Indices of the first layer of each kind, in order; at least two layers if there are two."""
    indices = [
        v for n, v in fields.items() if LAYER_INDICES.fullmatch(n) and isinstance(v, list | tuple)
    ]
    if isinstance(fields.get("per_layer_config"), dict):
        indices.append([int(i) for i in fields["per_layer_config"]])
    lists = [
        v for n, v in fields.items() if _per_layer(n, v, count) and not LAYER_INDICES.fullmatch(n)
    ]
    kinds: dict[str, int] = {}
    for layer in range(count):
        kind = str(([v[layer] for v in lists], [layer in v for v in indices]))
        kinds.setdefault(kind, layer)
    kept = sorted(kinds.values())[:_MAX_LAYERS]
    following = [i for i in range(count) if i not in kept]
    return sorted(kept + following[: max(0, 2 - len(kept))])


def _small(name: str, value: Any, size: Size, heads: int, language: bool) -> Any:
    """A small value of a field that gives a size; any other value is unchanged."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and RANDOM.fullmatch(name):
        return type(value)(0)  # MPT accepts no 0.0
    if name.endswith(("token_id", "token_index")) or name == "mask_id":
        return value if size.vlm else _token_id(name, value)
    if isinstance(value, list | tuple) and value and all(type(v) is int for v in value):
        most = _by_pattern(name, max(value), size) if size.vlm else max(value)
        ratio = max(value) // most if most else 1
        return [max(1, v // ratio) for v in value] if ratio > 1 else value
    if not number or not isinstance(value, int) or value <= 0:
        return value
    group = next((kind for kind, names in FIELDS.items() if name in names), "")
    if not language or not group:
        return _by_pattern(name, value, size) if size.vlm else value
    small = size.limit("heads" if group == "kv_heads" and value == heads else group, value)
    # The widths of the parts of a vision-language model agree, also those below the limit.
    return min(value, small) if size.vlm else small


def _by_pattern(name: str, value: int, size: Size) -> int:
    """A value limited by the first of ``PATTERNS`` that the name matches."""
    limit = next((limit for pattern, limit in PATTERNS if re.fullmatch(pattern, name)), 0)
    most = size.limit(limit, value) if isinstance(limit, str) else limit
    return min(value, most) if most else value


def _token_id(name: str, value: Any) -> Any:
    """An id inside the tiny vocabulary; padding is 0, the end of the text is 1."""
    if value is None:
        return None
    if name.startswith("pad"):
        return 0
    if name.startswith(("bos", "eos", "decoder_start", "sep", "cls")):
        return [1] if isinstance(value, list) else 1
    return min(int(value), VOCABULARY - 1) if isinstance(value, int) else value
