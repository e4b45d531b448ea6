"""Hugging Face configurations from plain data. Every key is checked: transformers ignores typos."""

from __future__ import annotations

import inspect
import json
import math
import re
from dataclasses import fields
from functools import cache
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_rope_utils import RopeParameters
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from vla.config.registry import nearest

# Fields of a Hugging Face configuration that do not describe the architecture.
_OTHER_FIELDS = (
    "architectures",
    "transformers_version",
    "dtype",
    "_name_or_path",
    "quantization_config",
)
_ROPE = ("rope_theta", "rope_scaling", "partial_rotary_factor")  # accepted with rope_parameters
# Used by transformers and no fields of every class.
_ALWAYS = (
    "torch_dtype",
    "attn_implementation",
    "output_attentions",
    "decoder_start_token_id",
    "_name_or_path",
)
_FROM_KEYWORDS = re.compile(
    r"""kwargs\.(?:pop|get|setdefault)\(\s*["'](\w+)["']"""
    r"""|kwargs\[["'](\w+)["']\]|["'](\w+)["']\s+(?:not\s+)?in\s+kwargs"""
)


def architecture_from_dict(
    config: dict[str, Any], path: str = "decoder", strict: bool = True, **given: Any
) -> Any:
    """A Hugging Face configuration object from ``model_type`` and its fields.

    Args:
        path: of the component in error messages.
        strict: refuse fields that the configuration class does not have. Saved configurations of
            pretrained models may have some.
        given: fields of the program, for example the vocabulary; those of ``config`` win.

    Raises:
        ValueError: no model_type, one that transformers does not know, an unknown field, two
            names of one field, or a value that the configuration class refuses.
    """
    path, own = f"{path}.config", dict(config)
    kind = own.pop("model_type", None)
    if not kind:
        raise ValueError(
            f"{path}: model_type is required (gpt2, llama, qwen3, gemma3_text, t5, ...)"
        )
    default = _default(str(kind), path)
    if strict:
        check_fields(own, default, path)
        given = {k: v for k, v in given.items() if default.attribute_map.get(k, k) not in own}
        inner = getattr(default, "text_config", None)
        if inner is not None:  # transformers ignores these fields beside text_config
            nested = {k: v for k, v in given.items() if k not in known_fields(default)}
            nested = {k: v for k, v in nested.items() if k in known_fields(inner)}
            given = {k: v for k, v in given.items() if k not in nested}
            own["text_config"] = nested | dict(own.get("text_config") or {})
    try:
        found = AutoConfig.for_model(kind, **(given | own))
    except Exception as error:  # huggingface_hub has no common base for its validation errors
        raise ValueError(_refusal(error, path, kind)) from error
    if strict:
        _check_values(own, found, path)
    return found


def architecture_to_dict(lm: Any) -> dict[str, Any]:
    """A model's configuration as plain data, the inverse of ``architecture_from_dict``."""
    config = json.loads(lm.config.to_json_string(use_diff=True))
    return {k: v for k, v in config.items() if k not in _OTHER_FIELDS}


def check_agreement(config: dict[str, Any], loaded: Any, model: str, path: str) -> None:
    """Refuse an architecture that differs from that of loaded weights, which have no use for it.

    Raises:
        ValueError: an unknown field, or a number that the loaded model does not have.
    """
    own = {k: v for k, v in config.items() if k != "model_type"}
    check_fields(own, loaded, f"{path}.config")
    _check_values(own, loaded, f"{path}.config", f"the weights of {model} have")


def check_fields(own: dict[str, Any], default: Any, path: str) -> None:
    """Refuse keys that the configuration class of ``default`` does not have, recursively.

    Raises:
        ValueError: an unknown key, or two names of one field with different values.
    """
    cls = type(default)
    # to_dict: parts that wrap another library save fields of their own (Gemma 3n's timm encoder).
    known = known_fields(default) | vars(default).keys() | default.to_dict().keys()
    for name, value in own.items():
        if name not in known:
            inside = [k for k in cls.sub_configs if name in known_fields(_sub(default, k))]
            if inside:
                raise ValueError(
                    f"{path}.{name}: {cls.model_type} has this field inside a part; "
                    f"write {path}.{inside[0]}.{name}"
                )
            other = {*vars(PretrainedConfig()), *_ALWAYS}
            hint = nearest(name, [n for n in known - other if not n.startswith("_")])
            raise ValueError(f"{path}.{name}: {cls.model_type} has no such field{hint}")
        real = cls.attribute_map.get(name)
        if real in own and own[real] != value:
            raise ValueError(
                f"{path}.{name}={value}: a second name of {real}, which is {own[real]}; "
                "give one of them"
            )
        if name in cls.sub_configs and isinstance(value, dict):
            inner = _sub(default, name)
            if value.get("model_type", inner.model_type) != inner.model_type:
                inner = _default(str(value["model_type"]), f"{path}.{name}")
            rest = {k: v for k, v in value.items() if k != "model_type"}
            check_fields(rest, inner, f"{path}.{name}")
        elif name in ("rope_parameters", "rope_scaling") and isinstance(value, dict):
            _check_rope(value, default, f"{path}.{name}")


def known_fields(config: Any) -> frozenset[str]:
    """Names that a configuration's class uses: fields, second names, and keyword arguments."""
    cls: Any = type(config)
    return _class_fields(cls)


@cache
def _class_fields(cls: Any) -> frozenset[str]:
    found = {f.name for f in fields(cls)} | set(cls.attribute_map) | set(cls.sub_configs)
    found |= {*_ALWAYS, *(_ROPE if "rope_parameters" in found else ())}
    for base in cls.__mro__[: cls.__mro__.index(PretrainedConfig)]:
        if "__post_init__" in vars(base):
            source = inspect.getsource(vars(base)["__post_init__"])
            found |= {name for names in _FROM_KEYWORDS.findall(source) for name in names if name}
    return frozenset(found)


def _check_values(own: dict[str, Any], config: Any, path: str, owner: str = "") -> None:
    """Refuse numbers and switches that the configuration does not have after its construction.

    Some classes compute a field from others and ignore a given value. T5 1.1 is configured by
    ``tie_word_embeddings: false``, which the class stores as ``scale_decoder_outputs``.
    """
    for name, value in own.items():
        if name == "tie_word_embeddings" and hasattr(config, "scale_decoder_outputs"):
            continue
        there, kind = getattr(config, name, value), type(config).model_type
        if isinstance(value, dict) and name in type(config).sub_configs:
            _check_values(value, there, f"{path}.{name}", owner)
        elif isinstance(value, int | float) and isinstance(there, int | float):
            # Weights in GGUF have numbers of single precision.
            if math.isclose(value, there, rel_tol=1e-6):
                continue
            cause = owner or f"{kind} computes this field from others:"
            raise ValueError(
                f"{path}.{name}={value}: {cause} {there}; remove this field"
                + (", or set model to null for random weights" if owner else "")
            )


def _check_rope(value: dict[str, Any], default: Any, path: str) -> None:
    """Keys of rotary position parameters: one mapping, or one for each type of layer."""
    usual = getattr(default, "rope_parameters", None) or {}
    ignored = default.ignore_keys_at_rope_validation or ()
    known = {*RopeParameters.__annotations__, "type", *ignored, *usual}
    for name, inner in value.items():
        if isinstance(inner, dict):
            _check_rope(inner, default, f"{path}.{name}")
        elif name not in known:
            raise ValueError(f"{path}.{name}: no such parameter{nearest(name, known)}")


def _default(kind: str, path: str) -> Any:
    try:
        return AutoConfig.for_model(kind)
    except ValueError as error:
        raise ValueError(
            f"{path}.model_type={kind!r}: transformers knows no such architecture"
            f"{nearest(str(kind), CONFIG_MAPPING)}"
        ) from error


def _sub(default: Any, name: str) -> Any:
    """The default configuration of a part; an empty one if the class has none."""
    found = getattr(default, name, None)
    return PretrainedConfig() if found is None else found


def _refusal(error: Exception, path: str, kind: str) -> str:
    """The message of a configuration class in one line, with the field's path."""
    text = " ".join(str(error).split())
    field = re.match(r"Validation error for field '(\w+)': (?:\w+: )?(.*)", text)
    return f"{path}.{field[1]}: {field[2]}" if field else f"{path}: {kind}: {text}"
