"""Overfit every action head on eight tabletop episodes with one small backbone.

Rows go to results.csv; finished heads are skipped.
Usage: python experiments/heads_overfit/run.py [--steps 1500]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.sources import TabletopSource
from vla.config import check, load_config
from vla.data.pack import pack
from vla.evaluation.offline import offline
from vla.models.lora import count_parameters
from vla.policies.checkpoint import load_policy
from vla.training.curves import read_curves
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
HEADS: dict[str, tuple[dict[str, Any], int]] = {  # head, horizon
    "token, integers": ({"name": "token"}, 1),
    "token, quantile bins, overwritten ids": (
        {"name": "token", "codec": {"name": "quantile"}, "token_assignment": "overwrite"},
        1,
    ),
    "token, plan first": ({"name": "token", "plan": True}, 1),
    "token, chunk of 4": ({"name": "token"}, 4),
    "token, FAST, chunk of 4": (
        {
            "name": "token",
            "codec": {"name": "fast", "vocab_size": 256, "scale": 20.0},
            "token_assignment": "extra",
        },
        4,
    ),
    "classification": ({"name": "classification"}, 1),
    "regression, L1": ({"name": "regression", "loss": "l1"}, 1),
    "regression, MSE": ({"name": "regression", "loss": "mse"}, 1),
    "regression, Huber": ({"name": "regression", "loss": "huber"}, 1),
    "regression, L1, chunk of 4": ({"name": "regression", "loss": "l1"}, 4),
    "mixture": ({"name": "mixture"}, 1),
    "flow": ({"name": "flow"}, 1),
}


def run(label: str, data: Path, steps: int) -> dict[str, Any]:
    """Train one head and measure its errors on every training frame."""
    head, horizon = HEADS[label]
    folder = Path("runs/heads_overfit") / label.replace(", ", "-").replace(" ", "_")
    config = load_config(
        HERE / "config.yaml",
        [f"train.steps={steps}", f"output_dir={folder}", f"data.window.horizon={horizon}"],
    )
    config["policy"]["head"], config["data"]["datasets"] = head, {"robot": str(data)}
    saved = train(check(config, RunConfig, ""))
    policy = load_policy(saved)
    result = offline(policy.robot(), data, split="train", progress=False)
    image = torch.zeros((1, 1, 1, 3, 64, 64), dtype=torch.uint8)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        policy.predict(image, ["pick the banana"])
        times.append(time.perf_counter() - start)
    right = read_curves(folder).get("train/action_token_accuracy")
    return {
        "head": label,
        "horizon": horizon,
        "tokens_right": f"{right[-1][1]:.4f}" if right else "",
        "parameters": count_parameters(policy)[0],
        "steps": steps,
        "frames": result.frames,
        "same_bin": f"{result.same_bin.mean():.4f}",
        "l1_share_of_range": f"{result.l1_share.mean():.5f}",
        "worst_dim_l1_share": f"{result.l1_share.max():.5f}",
        "act_ms": f"{1000 * statistics.median(times[5:]):.2f}",
    }


def tables() -> dict[str, str]:
    """Tables of the README by marker, from ``results.csv``."""
    rows = [
        [
            r["head"],
            f"{int(r['parameters']):,}",
            f"{100 * float(r['tokens_right']):.2f}" if r["tokens_right"] else "",
            f"{100 * float(r['same_bin']):.2f}",
            f"{100 * float(r['l1_share_of_range']):.2f}",
            f"{100 * float(r['worst_dim_l1_share']):.2f}",
            r["act_ms"],
        ]
        for r in read_table(HERE / "results.csv")
    ]
    return {
        "heads": markdown(
            [
                "head",
                "trained parameters",
                "token accuracy, %",
                "same bin, %",
                "L1, % of range",
                "worst dimension, %",
                "ms an action",
            ],
            rows,
        )
    }


def main() -> None:
    """Train all missing heads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    data = Path("data/heads_overfit")
    scene = SceneConfig(skills=("pick",), cards=(0, 0), concepts=12)
    pack(TabletopSource(scene, 8, noise=0.0, alternatives=0), data, shard_size=8, val_fraction=0.0)
    path = HERE / "results.csv"
    rows: list[dict[str, Any]] = list(read_table(path))
    for label in HEADS:
        if any(r["head"] == label and r["steps"] == str(steps) for r in rows):
            continue
        rows.append(run(label, data, steps))
        write_table(path, rows)
        put(HERE / "README.md", "heads", tables()["heads"])
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
