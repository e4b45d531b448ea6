"""A prompt that is longer than the decoder's context is refused, whatever its answer needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from conftest import TINY_POLICY
from policies import make_policy
from protocol_clients import encoded
from starlette.testclient import TestClient

from vla.serve.server import all_protocols, make_app
from vla.serve.service import PolicyService

# Starlette's test client emits deprecation warnings
pytestmark = pytest.mark.filterwarnings("default")
IMAGE = encoded(np.zeros((32, 32, 3), np.uint8))
BART = {
    "model_type": "bart",
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 100,
}


@pytest.mark.parametrize(
    ("decoder", "head", "longest"),
    [
        (TINY_POLICY["decoder"], "token", 250),
        (TINY_POLICY["decoder"], "regression", 250),
        pytest.param(
            {"name": "seq2seq", "vocab_size": 800, "config": BART},
            "token",
            80,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_length_gets_actions_or_a_reason(
    decoder: dict[str, Any], head: str, longest: int
) -> None:
    policy = make_policy({"name": head}, decoder=decoder)
    statuses = []
    with TestClient(make_app(PolicyService(policy.robot()), all_protocols())) as http:
        for words in (1, *range(longest - 30, longest, 6), 300):
            request = {"image": IMAGE, "instruction": " ".join(["apple"] * words)}
            reply = http.post("/act", json=request)
            statuses.append(reply.status_code)
            if reply.status_code != 200:
                assert (
                    reply.status_code == 400 and "position" in reply.text
                ) or "context" in reply.text
    assert statuses[0] == 200 and statuses[-1] == 400
    assert statuses == sorted(statuses)  # from some length on
