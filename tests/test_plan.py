"""``vla plan``: sizes, memory and time of a run from shapes alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call, here, line
from conftest import REPOSITORY
from torch.profiler import ProfilerActivity, profile

from vla.config import build, load_config
from vla.config.validation import check
from vla.data.datamodule import sample_chunks
from vla.models.decoders.tokenizer import train_tokenizer
from vla.models.lora import count_parameters
from vla.training.config import RunConfig
from vla.training.measure import example_batch
from vla.training.planning.plan import GIB, plan
from vla.training.planning.report import HEADER, row
from vla.training.planning.shapes import ShapesOnly
from vla.training.planning.specimen import make_specimen
from vla.training.planning.step import measure_step
from vla.training.planning.survey import make_survey
from vla.training.specs import make_robot_specs
from vla.utils.csv_tables import block, markdown, read_table

__all__ = ["here", "line"]  # fixtures
RECIPES = REPOSITORY / "configs" / "recipes"
ROWS = 6
CONV = {"name": "conv", "widths": [16, 32], "blocks": [1, 1], "image_size": 32}
GPT2 = {"model_type": "gpt2", "n_embd": 96, "n_layer": 3, "n_head": 4, "n_positions": 256}
GPT2 |= dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0)  # no kernel on a CPU
LLAMA = {
    "model_type": "llama",
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 192,
}
VIT = {"name": "timm", "model": "vit_tiny_patch16_224", "image_size": 32, "options": {"depth": 2}}
POLICIES: dict[str, dict[str, Any]] = {
    "gpt2": {"vision": CONV, "decoder": {"config": GPT2}},
    "llama": {"vision": VIT, "decoder": {"config": LLAMA}, "head": "regression"},
    "lora": {"vision": VIT, "decoder": {"config": LLAMA, "lora": {"rank": 4}}},
    "checkpointing": {"vision": CONV, "decoder": {"config": LLAMA, "checkpointing": True}},
}


def configured(run: dict[str, Any], name: str) -> RunConfig:
    """A run with one of ``POLICIES``."""
    policy = {"name": "vla", "connector": "mlp", "head": "token", **POLICIES[name]}
    policy["decoder"] = {"name": "causal", "vocab_size": 800, **policy["decoder"]}
    data = run["data"] | {"sampling_weights": {"robot": 1.0}}
    config: RunConfig = check(run | {"policy": policy, "data": data}, RunConfig, "run")
    return config


def real_policy(config: RunConfig) -> tuple[Any, Any]:
    """The policy of a run with its weights, and a batch of ``ROWS`` rows."""
    torch.manual_seed(0)
    specs, words = make_robot_specs(config)
    chunks = sample_chunks(config.data)
    given = {"tokenizer": train_tokenizer(words, 800), "words": words, "chunks": chunks}
    policy: Any = build("policy", config.policy, specs=specs, **given)
    texts = config.data.window.max_texts_per_image
    return policy.train(), example_batch(policy.specs, ROWS, texts, chunks)


def allocated(policy: Any, batch: Any) -> int:
    """Largest sum of bytes that torch's allocator gives out in a step, by torch's profiler."""

    def step() -> None:
        torch.cat([out.loss_M for out in policy.losses(batch).robots]).mean().backward()
        policy.zero_grad(set_to_none=True)

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    used = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        used += event.nbytes()
        peak = max(peak, used)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_memory_of_a_step_is_that_of_the_allocator_within_15_percent(
    name: str, tiny_run: dict[str, Any]
) -> None:
    config, mode = configured(tiny_run, name), ShapesOnly()
    specimen = make_specimen(config, mode)
    planned = measure_step(specimen, mode, "32-true").timeline.peak(ROWS)
    policy, batch = real_policy(config)
    sizes = {n: p.shape for n, p in policy.named_parameters()}
    assert {n: p.shape for n, p in specimen.policy.named_parameters()} == sizes
    assert planned == pytest.approx(allocated(policy, batch), rel=0.15)


def test_gpus_share_memory_as_their_strategy_says_and_the_largest_batch_fills_it(
    tiny_run: dict[str, Any],
) -> None:
    config = configured(tiny_run, "gpt2")
    survey = make_survey(config)

    def planned(count: int, strategy: str, **changes: Any) -> Any:
        trainer = replace(config.trainer, strategy=strategy, **changes)
        train = replace(config.train, batch_size=32)
        return plan(replace(config, trainer=trainer, train=train), survey, "a100", count)

    one, ddp, fsdp = planned(1, "auto"), planned(4, "ddp"), planned(4, "fsdp")
    assert one.weights * GIB == 4 * survey.parameters
    assert (ddp.weights, ddp.gradients) == (one.weights, 2 * one.gradients)
    assert (fsdp.weights, fsdp.optimizer) == (one.weights / 4, one.optimizer / 4)
    assert fsdp.gathered > 0 and planned(4, "deepspeed_stage_2").gradients < one.gradients
    assert (one.rows_per_gpu, ddp.rows_per_gpu) == (32, 8)
    assert ddp.steps_per_second == pytest.approx(4 * one.steps_per_second)
    averaged = replace(config, callbacks=["EarlyStopping", {"name": "ema", "decay": 0.99}])
    assert plan(averaged, survey, "a100").weights == 2 * plan(config, survey, "a100").weights
    slow = planned(1, "auto", accumulate_grad_batches=3)
    assert slow.hours == pytest.approx(3 * one.hours) and slow.total >= one.total
    for found in (one, ddp, fsdp, slow):
        parts = (found.weights, found.gradients, found.optimizer, found.gathered, found.activations)
        assert sum(parts) == pytest.approx(found.total)

    most = plan(config, survey, "t4").largest_rows_per_gpu

    def total(rows: int) -> float:
        train = replace(config.train, batch_size=rows)
        return plan(replace(config, train=train), survey, "t4").total

    usable = plan(config, survey, "t4").usable
    assert total(most) <= usable < total(most + 2)


@pytest.mark.slow
def test_the_command_plans_data_that_is_not_packed(
    capsys: pytest.CaptureFixture[str], tiny_run: dict[str, Any], tmp_path: Any
) -> None:
    data = tiny_run["data"] | {"datasets": {"robot": str(tmp_path / "none")}}
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(tiny_run | {"data": data | {"sampling_weights": {"robot": 1}}}))
    assert call("plan", path, "--gpu", "rtx4090", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["assumed"] == ["robot"] and found["gpu"] == "rtx4090" and found["hours"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "h10"], "--gpu h10: unknown; did you mean 'h100'?"),
        (["--count", "9999"], "train.batch_size=32 gives a GPU no row"),
        (["--utilisation", "1.5"], "--utilisation 1.5: expected above 0, at most 1"),
        (["--count", "2", "trainer.strategy=fsdp3"], "trainer.strategy: fsdp3: no plan for it"),
    ],
)
def test_a_wrong_option_is_named(
    arguments: list[str], message: str, line: Callable[..., str]
) -> None:
    assert message in line("plan", "configs/recipes/smollm2_360m_siglip_b.yaml", *arguments)


def test_the_table_of_the_recipes_is_that_of_their_plans() -> None:
    rows = [list(row.values()) for row in read_table(RECIPES / "plans.csv", HEADER)]
    assert block(RECIPES / "README.md", "plans") == markdown(HEADER, rows)
    assert {row[0] for row in rows} == {path.stem for path in RECIPES.glob("*.yaml")}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_builds_without_weights(path: Path) -> None:
    parameters, trained = count_parameters(
        make_specimen(load_config(path, [], RunConfig), ShapesOnly()).policy
    )
    saved = read_table(RECIPES / "plans.csv", HEADER)
    cells = next(r for r in saved if r["recipe"] == path.stem)
    assert cells["million parameters"] == f"{parameters / 1e6:.0f}"
    assert cells["of them trained"] == f"{trained / 1e6:.0f}"
    assert int(cells["largest rows a GPU"]) >= int(cells["rows a GPU"])


@pytest.mark.slow
def test_the_plan_of_a_recipe_is_current() -> None:
    saved = read_table(RECIPES / "plans.csv", HEADER)[0]
    config = load_config(RECIPES / f"{saved['recipe']}.yaml", [], RunConfig)
    count, gpu = saved["GPUs"].split(" x ")
    found = plan(config, make_survey(config), gpu, int(count))
    assert dict(zip(HEADER, row(saved["recipe"], found), strict=True)) == saved
