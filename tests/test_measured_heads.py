"""``vla zoo --measure`` and ladders for heads that are fitted to actions or need plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from policies import HEADS

from vla.data.datamodule import sample_chunks
from vla.experiments.scaling.execute import embedding_parameters
from vla.experiments.scaling.ladder import read_rows
from vla.experiments.scaling.run import run_ladder
from vla.models.lora import count_parameters
from vla.policies.checkpoint import load_policy
from vla.training.config import RunConfig
from vla.training.measure import example_batch, measure
from vla.training.run import load_config, make_policy

# Lightning and TensorBoard emit warnings that have no bearing on this package
pytestmark = pytest.mark.filterwarnings("default")

FAST = HEADS["token"][2]


def written(run: dict[str, Any], folder: Path, head: dict[str, Any]) -> str:
    """The path of the run with another head and chunks of four actions."""
    data = run["data"] | {"window": {"horizon": 4}}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run | {"policy": run["policy"] | {"head": head}, "data": data}))
    return str(path)


def test_fast_is_measured_on_actions_of_the_data(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    path = written(tiny_run, tmp_path, FAST)
    row = measure(path, ["train.batch_size=2"], 1, "cpu")
    config = load_config(path, [], RunConfig)
    chunks = sample_chunks(config.data)
    policy = make_policy(config, tmp_path / "tokenizer", chunks)
    assert row["parameters"] == row["trainable"] == count_parameters(policy)[0]
    # The tiny language model ties its embeddings, so each new token has one row of 32 numbers.
    assert policy.decoder.lm.get_input_embeddings().weight.shape == (800 + 128, 32)
    texts, codec = config.data.window.max_texts_per_image, policy.head().codec
    actions = example_batch(policy.specs, 2, texts, chunks).robots[0].actions_KHA
    lengths = [len(s) for s in codec.encode(policy.normaliser()(actions), [4] * len(actions))]
    assert row["action_tokens"] == sum(lengths) / len(lengths)
    assert max(lengths) < 4 * 8  # one token per number with bins


def test_a_head_after_a_plan_is_measured(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    row = measure(written(tiny_run, tmp_path, HEADS["chain_of_thought"][0]), [], 1, "cpu")
    assert row["flops_step"] > 0 and row["action_tokens"] is None


@pytest.mark.slow
def test_a_ladder_of_two_sizes_trains_fast(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 2, "val_every": 2, "val_windows": 4}
    web = yaml.safe_load(Path(written(tiny_run, tmp_path, FAST)).read_text())
    web["data"]["sampling_weights"] = {"web": 1.0}
    (tmp_path / "web.yaml").write_text(yaml.safe_dump(web))
    layers = "policy.decoder.config.n_layer"
    ladder = tmp_path / "ladder.yaml"
    plan = {
        "run": "run.yaml",
        "pretrain": "web.yaml",
        "sizes": {"s": [f"{layers}=1"], "m": [f"{layers}=2"]},
        "data": {"few": ["train.steps=2"]},
        "episodes": 1,
        "tasks": ["pick"],
        "out": str(tmp_path / "out"),
        "runs": str(tmp_path / "runs"),
    }
    ladder.write_text(yaml.safe_dump(plan))
    run_ladder(str(ladder), [])
    rows = {r["size"]: r for r in read_rows(tmp_path / "out" / "results.csv")}
    assert set(rows) == {"s", "m"}
    for size, row in rows.items():
        policy = load_policy(tmp_path / "runs" / f"run-{size}-few-s0" / "policy")
        count, _ = count_parameters(policy)
        assert int(row["parameters"]) == count
        assert int(row["parameters_without_embeddings"]) == count - embedding_parameters(policy)
        assert float(row["flops"]) > 0 and float(row["val_loss_robot"]) > 0
    assert int(rows["s"]["parameters"]) < int(rows["m"]["parameters"])
