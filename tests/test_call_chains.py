"""How many functions a reader follows from a command to the head of the policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from policies import make_policy
from protocol_clients import encoded
from starlette.testclient import TestClient

import vla
from vla.cli.train import train
from vla.models.heads.token import TokenHead
from vla.serve.server import all_protocols, make_app
from vla.serve.service import PolicyService

PACKAGE = Path(vla.__file__).parent


class Reached(BaseException):
    """Raised in place of the target; ``chain``: the package's functions that led there."""

    def __init__(self) -> None:
        self.chain: list[str] = []
        frame = sys._getframe(2)
        while frame is not None:
            if Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
                self.chain.insert(0, frame.f_code.co_qualname)
            frame = frame.f_back  # type: ignore[assignment]
        super().__init__(" > ".join(self.chain))


def stop(*args: Any, **kwargs: Any) -> Any:
    raise Reached


def test_at_most_five_functions_from_vla_train_to_the_loss_of_the_head(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run))
    monkeypatch.setattr(TokenHead, "loss", stop)
    with pytest.raises(Reached) as reached:
        train(tmp_path / "run.yaml", ["data.sampling_weights={robot: 1.0}"])
    chain = reached.value.chain
    assert chain[0] == "train" and chain[-1].endswith("losses")
    assert len(chain) <= 5, reached.value


def test_eight_functions_from_a_request_to_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy({"name": "token"})
    monkeypatch.setattr(policy.decoder, "prefill", stop)
    image = np.zeros((32, 32, 3), np.uint8)
    body = {"image": encoded(image), "instruction": "pick the apple"}
    client = TestClient(make_app(PolicyService(policy.robot()), all_protocols()))
    with pytest.raises(Reached) as reached:
        client.post("/act", json=body)
    # the handler awaits the thread of the batcher, so it is not on that thread's stack
    chain = ["act", *reached.value.chain]
    functions = ["VLAPolicy.predict", "TokenHead.predict", "TokenHead._generate"]
    turn = ["act", "Batcher._turn", "Batcher._answer", "PolicyRunner.predict", "PolicyRunner._call"]
    assert chain == [*turn, *functions, "generate"]  # the entry point of the decoders
