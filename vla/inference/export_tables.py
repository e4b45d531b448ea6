"""The JSON tables of an exported policy: legal tokens, plan format, values and units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.fft import idct
from torch import nn

from vla.errors import ConfigError
from vla.models.actions.bins import NumberCodec
from vla.models.actions.fast import FIRST_CODE, FastCodec
from vla.models.actions.normalise import fixed_dims
from vla.models.decoders.backbone import learned_positions
from vla.models.decoders.constraints import Choice, ForcedTokens, FreeText
from vla.models.decoders.sampling import GREEDY
from vla.models.heads.chain_of_thought import ChainOfThoughtHead
from vla.models.heads.flow import FlowHead
from vla.models.heads.token import TokenHead
from vla.models.prompts import ANSWER_WORD, plan_text, robot_prompt
from vla.policies.spec import RobotSpec

Segment = dict[str, Any]
# What ``clean_up_tokenization_spaces`` of transformers replaces in a decoded text.
_CLEANED = [" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"]


def decoding_table(
    decoder: Any, head: nn.Module, positions: Sequence[int], cache: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """``decoding.json``: how prompts become ids, and which tokens may follow each other.

    Args:
        positions: of the embeddings before the text.
        cache: (heads, numbers of a head) of the keys and values of every layer in turn.

    Raises:
        ConfigError: the head or its codec is of a kind that has no table.
    """
    inner: Any = head.action if isinstance(head, ChainOfThoughtHead) else head
    segments = text_segments(decoder, head)
    action = action_table(head) if isinstance(head, TokenHead) else None
    first = positions[-1] + 1 if positions else 0
    rows = learned_positions(decoder.lm)
    if rows is not None:
        rows -= first + (0 if isinstance(head, TokenHead) else len(inner.queries.query_HD))
    cleans = getattr(decoder.tokenizer, "clean_up_tokenization_spaces", False)
    sampling = getattr(head, "sampling", GREEDY)
    return {
        "prompt": robot_prompt("{instruction}"),
        "eos": decoder.tokenizer.eos_token_id,
        "vocabulary": decoder.vocabulary,
        "prefix_positions": list(positions),
        "first_position": first,
        "max_tokens": rows,
        "cache": [list(shape) for shape in cache],
        "sampling": vars(sampling),
        "plan": _plan_table(head),
        "text_replacements": [[c, c.strip() if c == " ' " else c[1:]] for c in _CLEANED]
        if cleans
        else [],
        "segments": segments,
        "action": action,
        "legal": legal_ids(action, segments),
        "start_deviation": inner.noise if isinstance(inner, FlowHead) else None,
    }


def _plan_table(head: Any) -> dict[str, Any] | None:
    """How a plan is written between prompt and action; None: the head writes none."""
    if not hasattr(head, "plan_format"):
        return None
    form = head.plan_format
    return {
        "mode": form.mode,
        "switch_margin": head.plan_switch_margin,
        "after": ANSWER_WORD,
        "text": plan_text("{plan}", form.word),
        "text_without_plan": plan_text("", "" if form.trained == "auto" else form.word),
    }


def text_segments(decoder: Any, head: Any) -> list[Segment]:
    """The constraints before the action in order; a chain of thought has its plan only."""
    if isinstance(head, TokenHead):
        plan = head.plan_format.free_text(decoder)
        return _described(head.plan_format.constraints(decoder, plan, head.token_rules.ids))
    if isinstance(head, ChainOfThoughtHead) and head.plan_format.mode is not False:
        return _described([head.plan_format.free_text(decoder)])
    return []


def _described(constraints: Iterable[Any]) -> list[Segment]:
    out: list[Segment] = []
    for c in constraints:
        if isinstance(c, ForcedTokens):
            out.append({"kind": "forced", "ids": list(map(int, c.ids))})
        elif isinstance(c, FreeText):
            out.append(
                {
                    "kind": "free",
                    "stop": c.stop,
                    "limit": c.limit,
                    "other_stop": c.other_stop,
                    "not_first": None if c.first is None else c.stop,
                }
            )
        elif isinstance(c, Choice):
            options = [
                {"ids": list(map(int, i)), "then": _described(rest)} for i, rest in c.options
            ]
            out.append({"kind": "choice", "options": options})
        else:
            raise ConfigError(f"export: no table describes the constraint {type(c).__name__}")
    return out


def legal_ids(action: dict[str, Any] | None, segments: Iterable[Segment]) -> list[int]:
    """Sorted ids between which an exported policy chooses outside of free text."""
    found: set[int] = set()
    if action is not None:
        found |= {i for piece in action["pieces"] for i in piece} | {action["eos"]}
    for segment in segments:
        for option in segment.get("options", []):
            found |= {*option["ids"], *legal_ids(None, option["then"])}
    return sorted(found)


def action_table(head: TokenHead) -> dict[str, Any]:
    """Tokens of every symbol, which symbols may follow, and their values.

    Raises:
        ConfigError: a codec that is neither a ``NumberCodec`` nor FAST.
    """
    rules, codec, dim = head.token_rules, head.codec, head.codec.action_dim
    table: dict[str, Any] = {
        "pieces": [list(map(int, piece)) for piece in head.vocabulary.pieces],
        "single": head.vocabulary.single,
        "eos": rules.eos,
        "symbols": [_listed(rules.symbols(k)) for k in range(dim)],
        "count": codec.length,
        "total": dim * codec.horizon,
        "sizes": None,
        "values": None,
    }
    if isinstance(codec, NumberCodec):
        index_SA = torch.arange(codec.symbols)[:, None].expand(-1, dim)
        table["values"] = codec.value(index_SA).tolist()
    elif isinstance(codec, FastCodec):
        table["sizes"] = [len(piece) for piece in codec.pieces]
        table["codes"] = [[ord(c) - FIRST_CODE - codec.limit for c in p] for p in codec.pieces]
        table["scale"] = codec.scale
        table["inverse"] = idct(np.eye(codec.horizon), axis=0, norm="ortho").tolist()
        table["pieces"] = table["pieces"][: len(codec.pieces)]
    else:
        raise ConfigError(
            f"export: head.codec {type(codec).__name__} has no table of values; "
            "serve the saved policy with vla serve, or train with uniform, quantile or fast"
        )
    return table


def _listed(symbols: Sequence[int] | None) -> list[int] | None:
    return None if symbols is None else list(symbols)


def units_table(normaliser: Any, spec: RobotSpec) -> dict[str, Any]:
    """``normalisation.json``: [-1, 1] to robot units is ``x * span + centre``."""
    fixed = fixed_dims(spec.statistics.get("actions"), spec.action_space.dim)
    return {
        "span": normaliser.span_A.tolist(),
        "centre": normaliser.centre_A.tolist(),
        "constant": _without_nan(normaliser.constant_A.tolist()),
        "fixed": _without_nan(fixed.tolist()),
    }


def _without_nan(values: Any) -> Any:
    """Nested lists of numbers, None instead of NaN, which JSON does not have."""
    if isinstance(values, list):
        return [_without_nan(v) for v in values]
    return None if np.isnan(values) else values
