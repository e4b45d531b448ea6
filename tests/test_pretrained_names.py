"""Names of pretrained models: typos, the hub's cache, and a hub that does not answer."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants

from vla.config import build
from vla.models.pretrained import PretrainedError, _hub_problem, load_pretrained


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "vit_tny_patch16_224"}, r"policy\.vision\.model=.*'vit_tiny_patch16_224'"),
        ({"model": "ResNet-18"}, r"did you mean 'resnet18' or"),
        ({"model": "timm/convnext_atto"}, r"did you mean 'convnext_atto'\?"),
        ({"model": "resnet18.a1_in1"}, r"no weights 'a1_in1' for resnet18; it has resnet18\.a1"),
        ({"model": "zzz"}, r"no name is similar|did you mean"),
        ({"model": "resnet10t", "options": {"dept": 1}}, r"policy\.vision\.options\.dept: timm's"),
        ({"model": "resnet10t", "image_size": -3}, r"policy\.vision\.image_size=-3"),
        ({"model": "resnet10t", "layer": 9}, r"policy\.vision\.layer=9: resnet10t has 5 layers"),
    ],
)
def test_wrong_timm_models(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        build("vision", {"name": "timm", **options}, "policy.vision")


def test_errors_name_the_whole_path_of_the_configuration() -> None:
    one = {"name": "timm", "model": "resnet10t", "image_size": 32}
    fused = {"name": "fused", "encoders": [one, one | {"model": "resnet10"}]}
    with pytest.raises(ValueError, match=r"policy\.vision\.encoders\[1\]\.model='resnet10'"):
        build("vision", fused, "policy.vision")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that may use the hub, without any model in its cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    _hub_problem.cache_clear()
    monkeypatch.setattr("vla.models.pretrained.HUB_SECONDS", 0.2)


@pytest.fixture(autouse=True)
def clear() -> Any:
    yield
    _hub_problem.cache_clear()


def test_a_hub_that_does_not_answer_fails_fast(hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def connect(*arguments: Any, **options: Any) -> None:
        released.wait(30)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "create_connection", connect)

    def load() -> None:
        assert constants.HF_HUB_OFFLINE, "the client would try for a minute"
        raise OSError("not in the cache")

    start = time.perf_counter()
    with pytest.raises(PretrainedError, match=r"owner/model: not in the hub's cache .*not answer"):
        load_pretrained("owner/model", load)
    assert time.perf_counter() - start < 5
    released.set()


def test_the_cache_needs_no_network(hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*arguments: Any, **options: Any) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket, "create_connection", connect)
    assert load_pretrained("owner/model", lambda: constants.HF_HUB_OFFLINE) is True
    assert constants.HF_HUB_OFFLINE is False


def test_a_download_follows_a_miss_and_leaves_the_random_state(
    hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Connection:
        def close(self) -> None: ...

    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: Connection())
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    def load() -> torch.Tensor:
        drawn = torch.rand(2)
        if constants.HF_HUB_OFFLINE:
            raise OSError("not in the cache")
        return drawn

    assert torch.equal(load_pretrained("owner/model", load), expected)
    with pytest.raises(PretrainedError, match="the download failed"):
        load_pretrained("owner/model", lambda: (_ for _ in ()).throw(OSError("404")))


def test_a_forbidden_download_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _hub_problem.cache_clear()
    assert timm.is_model("resnet10t")
    with pytest.raises(PretrainedError, match="HF_HUB_OFFLINE=1 forbids the download"):
        build("vision", {"name": "timm", "model": "resnet10t", "weights": True})
