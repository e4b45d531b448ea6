"""Measure the cost of the LoRA fine-tune and the latency of its policy; writes results.json.

Usage, after `vla train configs/smollm2_lora.yaml`: python experiments/pretrained_lora/measure.py
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import time
from pathlib import Path

import torch

from vla.evaluation.rollout import open_benchmark
from vla.inference.runner import PolicyRunner
from vla.models.lora import count_parameters
from vla.policies.checkpoint import load_policy
from vla.utils.memory import peak_memory_mb

HERE, RUN = Path(__file__).parent, Path("runs/smollm2_lora")


def main() -> None:
    """Write results.json and a copy of the metrics."""
    torch.set_num_threads(2)
    metrics = next(RUN.glob("csv-*/metrics.csv"))
    shutil.copy(metrics, HERE / "metrics.csv")
    rows = [r for r in csv.DictReader(metrics.open(newline="")) if r.get("images_per_second")]
    policy = load_policy(RUN / "policy").robot()
    total, learning = count_parameters(policy.policy)
    benchmark = open_benchmark(policy.spec.benchmark, policy.spec.cameras)
    env = benchmark.make_env(benchmark.default_tasks()[0])
    runner = PolicyRunner(policy)
    observation, _ = env.reset(seed=1)
    runner.reset(0)
    times, actions = [], []
    for _ in range(5):
        start = time.perf_counter()
        actions.append(runner.act([0], [observation])[0])
        times.append(time.perf_counter() - start)
        observation = env.step(actions[-1])[0]
    results = {
        "steps": int(rows[-1]["step"]),
        "images_per_second_median": statistics.median(float(r["images_per_second"]) for r in rows),
        "parameters": total,
        "trainable": learning,
        "act_s_median": statistics.median(times),
        "actions": [a.tolist() for a in actions],
        "peak_memory_mb_of_this_script": peak_memory_mb(),
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
