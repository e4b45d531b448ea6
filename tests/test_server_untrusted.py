"""Loading a saved policy runs no code, downloads nothing and uses little memory."""

from __future__ import annotations

import json
import math
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from policies import make_policy
from safetensors.torch import load_file, save_file

from vla.config import build
from vla.errors import ConfigError, DataError
from vla.models.decoders.tokenizer import load_tokenizer
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.untrusted import MAX_VALUES, MemoryLimit, read_saved_config

TIMM = {"name": "timm", "model": "vit_tiny_patch16_224", "image_size": 32, "options": {"depth": 1}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import TINY_POLICY

    policy = make_policy({"name": "regression"})
    config = TINY_POLICY | {"head": {"name": "regression"}}
    return save_policy(policy, config, tmp_path_factory.mktemp("untrusted") / "policy")


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the saved policy; a connection to the network is an error."""
    import shutil

    def connect(*address: Any, **options: Any) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)
    return Path(shutil.copytree(saved, tmp_path / "policy"))


def change(folder: Path, path: str, value: Any) -> None:
    """Set one value of ``policy.yaml``, by its path."""
    config = yaml.safe_load((folder / "policy.yaml").read_text())
    *parents, key = path.split(".")
    inner = config
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[key] = value
    (folder / "policy.yaml").write_text(yaml.safe_dump(config))


class Trap:
    """Its pickle writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_an_unchanged_policy_loads_without_the_network(folder: Path) -> None:
    assert load_policy(folder, "cpu").specs


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("vision.options.checkpoint_path", "evil.pth", "vision.options.checkpoint_path: it loads"),
        ("vision.options.pretrained_cfg", {"file": "evil.pth"}, "pretrained_cfg: it loads"),
        ("vision.options.pretrained_cfg_overlay", {"url": "x"}, "pretrained_cfg_overlay: it loads"),
        ("vision.options.pretrained", True, "vision.options.pretrained: it loads"),
        ("vision.model", "hf-hub:owner/model", "vision.model: the address"),
        ("vision.model", "local-dir:/tmp/evil", "vision.model: the address"),
        ("decoder.config.auto_map", {"AutoConfig": "evil.Config"}, "auto_map: it loads"),
        ("decoder.config.trust_remote_code", True, "trust_remote_code: it loads"),
        ("decoder.config._attn_implementation", "owner/kernel", "may be code of a model hub"),
        ("decoder.config.backbone_config.use_pretrained_backbone", True, "it downloads weights"),
        (
            "decoder",
            {"name": "causal", "model": "owner/model"},
            "decoder.model: there is no",
        ),
        ("base", "other.yaml", "base: a saved policy has no other files"),
        ("connector.layers", 10**12, "connector.layers: expected at most"),
    ],
)
def test_options_that_load_something_are_refused_with_their_path(
    folder: Path, path: str, value: Any, message: str
) -> None:
    change(folder, path, value)
    with pytest.raises(DataError) as refused:
        load_policy(folder, "cpu")
    assert message in str(refused.value) and str(folder / "policy.yaml") in str(refused.value)


@pytest.mark.parametrize(
    "size", ["n_embd", "n_inner", "n_positions", pytest.param("n_layer", marks=pytest.mark.slow)]
)
def test_a_small_file_cannot_make_a_large_model(folder: Path, size: str) -> None:
    change(folder, f"decoder.config.{size}", 2**30)
    with pytest.raises(DataError, match=r"policy.yaml: a model of this size (needs|has) more than"):
        load_policy(folder, "cpu")


def test_large_tensors_are_refused_before_memory_is_used(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"x")
    calls: list[Any] = [
        lambda: torch.empty(2**20, 2**20),
        lambda: torch.zeros((2**40,), dtype=torch.int8),
        lambda: torch.full((2**20, 2**12), 1.0),
        lambda: torch.arange(2**40),
        lambda: torch.linspace(0, 1, 2**40),
        lambda: torch.eye(2**20),
        lambda: torch.ones(4).repeat(2**40),
        lambda: torch.nn.Linear(2**20, 2**20),
        lambda: torch.nn.Embedding(2**30, 64),
    ]
    for call in calls:
        with pytest.raises(MemoryError), MemoryLimit(weights):
            call()
    with MemoryLimit(weights), torch.device("meta"):
        assert torch.nn.Linear(2**20, 2**20).weight.shape == (2**20, 2**20)


def test_values_of_the_configuration_are_limited_also_through_aliases(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "policy.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"more than {MAX_VALUES} values"):
        read_saved_config(path)


def test_the_tokenizer_of_a_policy_runs_no_code(folder: Path, monkeypatch: Any) -> None:
    file = folder / "tokenizer" / "tokenizer_config.json"
    changed = json.loads(file.read_text()) | {
        "tokenizer_class": "EvilTokenizer",
        "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]},
    }
    file.write_text(json.dumps(changed))
    trap = folder / "trap"
    (folder / "tokenizer" / "evil.py").write_text(f"open({str(trap)!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("a question to the user"))
    try:
        load_tokenizer(folder / "tokenizer")
    except Exception as error:
        assert "trust_remote_code" in str(error) or "EvilTokenizer" in str(error)
    assert not trap.exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[0] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match=f"the weight {name} is not finite"):
        load_policy(folder, "cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint_path": "evil.pth"},
        {"pretrained_cfg": {"file": "evil.pth"}},
        {"pretrained_cfg_overlay": {"file": "evil.pth"}},
        {"pretrained": True},
        {"cache_dir": "evil"},
    ],
)
def test_options_of_timm_that_load_something_are_refused_in_training_too(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.pth").write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    with pytest.raises((ConfigError, ValueError), match=f"vision.options.{next(iter(options))}"):
        build("vision", TIMM | {"options": options}, "vision", pretrained=False)
    assert not (tmp_path / "trap").exists()
