"""Which policies have ONNX graphs, decided before anything is traced."""

from __future__ import annotations

from vla.errors import ConfigError
from vla.models.actions.bins import NumberCodec
from vla.models.actions.fast import FastCodec
from vla.models.decoders.causal import CausalDecoder
from vla.models.heads.chain_of_thought import ChainOfThoughtHead
from vla.models.heads.queries import QueryHead
from vla.models.heads.token import TokenHead
from vla.policies.bound import BoundPolicy
from vla.policies.vla import VLAPolicy

_ADVICE = "serve the saved policy with vla serve"


def check_exportable(bound: BoundPolicy) -> None:
    """Compare the policy with what graphs and tables can express.

    Raises:
        ConfigError: a part of the policy cannot be exported; the message names it.
    """
    reason = _reason(bound)
    if reason:
        raise ConfigError(f"export: {reason}; {_ADVICE}")


def _reason(bound: BoundPolicy) -> str:
    """What cannot be exported, and why; empty: all can."""
    policy = bound.policy
    if type(policy).predict is not VLAPolicy.predict:
        return f"the policy {type(policy).__name__} is no VLAPolicy"
    decoder, head = policy.decoder, policy.head(bound.robot)
    family = decoder.lm.config.model_type
    if decoder.is_vlm:
        return f"the decoder {family} is a whole vision-language model with a processor of its own"
    if not isinstance(decoder, CausalDecoder):
        return f"the decoder {family} is no causal language model ({type(decoder).__name__})"
    if decoder.execution != "packed":
        return (
            f"the decoder {family} takes no masks of packed texts (recurrent or state-space "
            "layers, or a forward pass of its own)"
        )
    if getattr(decoder.tokenizer, "backend_tokenizer", None) is None:
        return f"the tokenizer {type(decoder.tokenizer).__name__} has no tokenizer.json"
    if bound.spec.cameras and not min(bound.spec.image_size):
        return "the image size of the training data is unknown (image_size 0 in robot_spec.json)"
    inner = head.action if isinstance(head, ChainOfThoughtHead) else head
    if isinstance(head, TokenHead):
        if not isinstance(head.codec, NumberCodec | FastCodec):
            return f"the codec {type(head.codec).__name__} has no table of values"
    elif not isinstance(inner, QueryHead) or type(inner).predict is not QueryHead.predict:
        return f"the head {type(inner).__name__} has a prediction of its own"
    return ""
