"""What the short LoRA fine-tune cost and whether its policy acts. Usage, after `vla train configs/smollm2_lora.yaml`: python experiments/pretrained_lora/measure.py"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import time
from pathlib import Path

import gymnasium as gym
import torch

from vla.evaluate import to_images
from vla.memory import peak_memory_mb
from vla.module import PolicyModule
from vla.report import default_environment
from vla.tuning import trainable

HERE, RUN = Path(__file__).parent, Path("runs/smollm2_lora")


def main() -> None:
    """Writes results.json and a copy of the metrics."""
    torch.set_num_threads(2)
    metrics = next(RUN.glob("csv-*/metrics.csv"))
    shutil.copy(metrics, HERE / "metrics.csv")
    rows = [r for r in csv.DictReader(metrics.open(newline="")) if r.get("images_per_second")]
    policy = PolicyModule.load(RUN / "policy").robot()
    total, learning = trainable(policy.policy)
    env = gym.make("vla/Tabletop-v0", disable_env_checker=True, **default_environment(policy.contract)[0])
    observation, _ = env.reset(seed=1)
    times, actions = [], []
    for _ in range(5):
        start = time.perf_counter()
        actions.append(policy.act(to_images([observation], policy.contract.cameras), [observation["instruction"]])[0, 0])
        times.append(time.perf_counter() - start)
        observation = env.step(actions[-1])[0]
    results = {
        "steps": int(rows[-1]["step"]), "images_per_second_median": statistics.median(float(r["images_per_second"]) for r in rows), "parameters": total,
        "trainable": learning, "act_s_median": statistics.median(times), "actions": [a.tolist() for a in actions],
        "peak_memory_mb_of_this_script": peak_memory_mb(),
    }  # fmt: skip
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
