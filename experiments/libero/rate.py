"""CPU seconds of a control step and of both images in LIBERO; writes rate.csv beside this file."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np

from vla.evaluation.rollout import open_benchmark

STEPS = 4


def measure(images: str, size: int) -> dict[str, str]:
    """Means over some steps of one task; the first step and the first images are left out."""
    benchmark = open_benchmark({"name": "libero/spatial", "images": images, "size": size})
    env = benchmark.make_env(benchmark.tasks()[0])
    env.reset(seed=0)
    action = np.zeros(benchmark.action_space.dim, np.float32)
    spent = np.zeros((STEPS, 2))
    for row in spent:
        begin = time.process_time()
        observation = env.step(action)[0]
        middle = time.process_time()
        for camera in observation["images"]:
            np.asarray(observation["images"][camera])
        row[:] = middle - begin, time.process_time() - middle
    env.close()
    step, two = spent[1:].mean(0)
    names = ("images", "size", "step_cpu_s", "two_images_cpu_s", "steps_per_cpu_s")
    values = (images, str(size), f"{step:.3f}", f"{two:.3f}", f"{1 / (step + two):.1f}")
    return dict(zip(names, values, strict=True))


if __name__ == "__main__":
    rows = [measure(images, size) for images in ("fast", "published") for size in (128, 256)]
    with Path(__file__).with_name("rate.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
