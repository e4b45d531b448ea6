"""The training loss of web data."""

from __future__ import annotations

from typing import Any

from vla.models.decoders.text import TextLoss, continuation, text_loss
from vla.models.prompts import web_prompts
from vla.types import WebBatch


def web_loss(policy: Any, web: WebBatch) -> TextLoss:
    """Next-token loss of the answers; ``policy`` is a ``VLAPolicy``, whose module imports this."""
    tok, prefix = policy.decoder.tokenizer, policy.prefix(web.images_BCHW[:, None, None])
    prompts = web_prompts(web.questions, web.turns)
    answers = [[*continuation(tok, f" {a}"), tok.eos_token_id] for a in web.answers]
    rows_K, attend_K = web.image_index_K, web.attend_image_K
    return text_loss(policy.decoder, prefix, rows_K, prompts, answers, attend_K)
