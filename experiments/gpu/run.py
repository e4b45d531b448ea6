"""Measure a training step, an action and the memory of ladder_gpu.yaml's sizes on one GPU.

Weights are random, of the real shapes. Sizes with a row in results.csv are skipped.
Usage: python experiments/gpu/run.py [--table]
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from vla.data.pack import pack_from
from vla.training.measure import measure
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
SIZES = ("smollm2_135m", "smollm2_360m", "qwen3_0_6b", "smollm2_1_7b")
COLUMNS = (
    "device",
    "size",
    "batch",
    "parameters",
    "flops_step",
    "step_s",
    "act_s",
    "peak_memory_mb",
)
SHAPES = (
    "policy.decoder.model=null",
    "policy.vision.weights=false",
)  # random weights: nothing is downloaded


def data_sets() -> list[str]:
    """Changes of a run's configuration that select the folders of ``pack_small``."""
    return [f"data.datasets.{name}=data/gpu/{name}" for name in ("robot", "web")]


def pack_small() -> None:
    """Pack small data sets with images of 224 px."""
    changes = ["source.size=224", "source.episodes=40", "shard_size=5"]
    pack_from(Path("configs/pack/emergent_robot.yaml"), Path("data/gpu/robot"), changes)
    pack_from(
        Path("configs/pack/emergent_web.yaml"),
        Path("data/gpu/web"),
        ["source.web.size=224", "source.samples=160", "shard_size=20"],
    )


def measured(size: str) -> dict[str, str]:
    """A row of one size: training in bf16 with batches of 64, one action after a plan."""
    try:
        with ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn")
        ) as pool:  # so that peak memory counts this size only
            overrides = [f"policy.decoder={size}", *SHAPES, *data_sets(), "train.batch_size=64"]
            found = pool.submit(measure, "configs/scaling/robot_gpu.yaml", overrides, 5).result()
    except torch.OutOfMemoryError:
        return {
            "device": torch.cuda.get_device_name(),
            "size": size,
            "batch": "64",
            "peak_memory_mb": "out of memory",
        }
    return {c: str(found[c]) for c in COLUMNS if c in found} | {"size": size}


def tables() -> dict[str, str]:
    """Tables of the README by marker, from the CSV and JSON files."""
    rows = []
    for r in read_table(HERE / "results.csv", COLUMNS):
        if not r["step_s"]:
            rows.append([r["device"], r["size"], "", "", "", "", r["peak_memory_mb"]])
            continue
        step, memory = float(r["step_s"]), float(r["peak_memory_mb"]) / 1024
        speed = float(r["flops_step"]) / step / 1e12
        rows.append(
            [
                r["device"],
                r["size"],
                f"{int(r['parameters']) / 1e6:.0f}",
                f"{1000 * step:.0f}",
                f"{speed:.0f}",
                f"{1000 * float(r['act_s']):.0f}",
                f"{memory:.0f}",
            ]
        )
    header = [
        "GPU",
        "decoder",
        "million parameters",
        "ms a step of 64",
        "TFLOP/s",
        "ms an action",
        "GiB",
    ]
    return {"costs": markdown(header, rows)}


def main() -> None:
    """Measure the missing sizes and write the README's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="write the README's tables only")
    if not parser.parse_args().table:
        pack_small()
        for size in SIZES:
            rows = read_table(HERE / "results.csv", COLUMNS)
            if size not in {r["size"] for r in rows}:
                write_table(HERE / "results.csv", [*rows, measured(size)], COLUMNS)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
