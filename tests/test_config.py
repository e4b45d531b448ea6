"""Configurations: every shipped YAML is valid, and a typo is an error with a suggestion."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.config import (
    Slot,
    build,
    check,
    configs_dir,
    load_config,
    presets,
    register,
    registered,
)
from vla.config.registry import _REGISTRY
from vla.data.pack import PackConfig
from vla.errors import ConfigError
from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.spec import RobotSpec
from vla.training.run import RunConfig

RUNS = sorted(p for p in configs_dir().glob("*.yaml"))
# Without those of recorded data, and of Language-Table's checkout, which are not here.
PACKS = sorted(
    p
    for p in (configs_dir() / "pack").glob("*.yaml")
    if "path:" not in p.read_text() and p.stem != "language_table_questions"
)


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_every_run_yaml_builds_its_policy(path: Path) -> None:
    config = load_config(path, [], RunConfig)
    tokenizer = train_tokenizer(Counter({"pick": 9, "apple": 5}), 800)
    space = LAYOUTS["rt2"]
    ends = {
        "min": list(space.low),
        "q01": list(space.low),
        "q99": list(space.high),
        "max": list(space.high),
    }
    state = {n: [k / 5] * 2 for k, n in enumerate(("min", "q01", "std", "mean", "q99", "max"))}
    options = {"state_dim": 2} if config.policy.get("state") else {}
    statistics = {"actions": ends, "state": state}
    specs = {"robot": RobotSpec(space, ("top",), (64, 64), statistics=statistics, **options)}
    policy = build("policy", config.policy, specs=specs, tokenizer=tokenizer, pretrained=False)
    assert sum(p.numel() for p in policy.parameters()) > 100_000


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, p in presets("vision").items()
        if "weights" not in p.read_text() and n != "dinosiglip"
    ],
)
def test_every_vision_preset_gives_finite_image_tokens(name: str) -> None:
    encoder = build("vision", name)
    tokens = encoder(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert tokens.shape[0] == 2 and tokens.shape[2] == encoder.width and tokens.isfinite().all()


@pytest.mark.parametrize("path", PACKS, ids=lambda p: p.stem)
def test_every_pack_yaml_builds_its_source(path: Path) -> None:
    source = build("source", load_config(path, [], PackConfig).source)
    assert len(source) > 0 and source[0].key


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.stepz=5",
            r"train\.stepz: unknown key; did you mean 'steps'\?.*Choices: .*batch_size",
        ),
        ("train.steps=many", r"train\.steps: expected int, got 'many'"),
        (
            "policy.vision=conv_tinny",
            r"policy\.vision: no preset 'conv_tinny'.*did you mean 'conv_tiny'",
        ),
        (
            "policy.head={name: tokn}",
            r"policy\.head\.name: no head component 'tokn'; did you mean 'token'",
        ),
        (
            "policy.head={name: token, token_asignment: extra}",
            r"policy\.head\.token_asignment: unknown key; did you mean 'token_assignment'",
        ),
        (
            "policy.head={name: token, token_assignment: integer}",
            r"policy\.head\.token_assignment: 'integer' is not allowed; did you mean 'integers'",
        ),
        ("policy.specs=1", r"policy\.specs: unknown key"),
        ("optim.betas=[0.9]", r"optim\.betas: expected 2 values"),
        ("data.window.cameras=top", r"data\.window\.cameras: expected a list"),
        ("datta.shuffle=1", r"datta: unknown key; did you mean 'data'"),
        ("nonsense", r"override 'nonsense': expected key=value"),
        ("trainer.precision=bf16", r"trainer\.precision: 'bf16' is not allowed"),
    ],
)
def test_typos_are_named_with_the_nearest_valid_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(configs_dir() / "demo_token.yaml", [override], RunConfig)


def test_missing_file_and_missing_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'demo_token'"):
        load_config(configs_dir() / "demo_tokn.yaml", [], RunConfig)
    (tmp_path / "a.yaml").write_text("output_dir: x\n")
    with pytest.raises(ConfigError, match="policy: required, but missing"):
        load_config(tmp_path / "a.yaml", [], RunConfig)
    (tmp_path / "b.yaml").write_text("output_dir: [x\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "b.yaml", [], RunConfig)


def test_bases_merge_in_order_and_circular_bases_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: {a: 1, b: 2}\ny: 1\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nx: {b: 3}\n")
    assert load_config(tmp_path / "b.yaml", ["y=5"]) == {"x": {"a": 1, "b": 3}, "y": 5}
    (tmp_path / "c.yaml").write_text("base: c.yaml\n")
    with pytest.raises(ConfigError, match="circular reference"):
        load_config(tmp_path / "c.yaml")


def test_another_component_replaces_the_whole_slot(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("head: {name: token, bins: 9}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nhead: {name: regression, loss: mse}\n")
    assert load_config(tmp_path / "b.yaml") == {"head": {"name": "regression", "loss": "mse"}}


def test_a_preset_can_be_taken_with_changes(tmp_path: Path) -> None:
    demo = configs_dir() / "demo_token.yaml"
    changed = load_config(
        demo, ["policy.decoder.config.n_layer=2", "policy.decoder.lora.rank=4"], RunConfig
    ).policy["decoder"]
    plain = load_config(demo, [], RunConfig).policy["decoder"]
    assert changed["config"] == plain["config"] | {"n_layer": 2} and changed["lora"].rank == 4
    (tmp_path / "a.yaml").write_text("decoder: {preset: llama_tiny, frozen: true}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ndecoder: gpt2_tiny\n")
    assert load_config(tmp_path / "a.yaml")["decoder"] == {"preset": "llama_tiny", "frozen": True}
    assert load_config(tmp_path / "b.yaml")["decoder"] == "gpt2_tiny"


@pytest.mark.parametrize("slot", ["vision", "connector", "decoder", "head"])
def test_every_preset_is_valid(slot: str) -> None:
    assert presets(slot)
    for name in presets(slot):
        assert check(name, Annotated[dict[str, Any], Slot(slot)], slot)["name"] in registered(slot)


def test_yaml_is_read_without_executing_tags(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("x: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError):
        load_config(path)


def test_a_name_belongs_to_one_class_and_wired_parameters_are_known() -> None:
    registered("head")
    with pytest.raises(ConfigError, match=r"head 'token': .*Other has the name of .*TokenHead"):

        @register("head", "token")
        class Other: ...

    assert registered("head")["token"].__name__ == "TokenHead"

    @register("connector", "needs_more")
    class NeedsMore:
        def __init__(self, *, in_width: int, num_layers: int) -> None: ...

    try:
        with pytest.raises(ConfigError, match=r"keyword-only parameter 'num_layers'.*in_width"):
            build("connector", {"name": "needs_more"}, in_width=8)
    finally:
        del _REGISTRY["connector"]["needs_more"]
