"""What configs/scaling/ladder_gpu.yaml costs on one GPU: a step, an action and the memory of every size, with random weights of the real shapes.

Usage: python experiments/gpu/run.py [--table]; appends to results.csv, sizes that are there are skipped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from vla.data.pack import pack_from
from vla.scaling.ladder import read_rows
from vla.tables import markdown, put, read_table, write_table
from vla.zoo import measure

HERE = Path(__file__).parent
SIZES = ("smollm2_135m", "smollm2_360m", "qwen3_0_6b", "smollm2_1_7b")
COLUMNS = ("device", "size", "batch", "parameters", "flops_step", "step_s", "act_s", "peak_memory_mb")
SHAPES = ("policy.decoder.model=null", "policy.vision.weights=false")  # no hub: nothing is downloaded


def data_sets() -> list[str]:
    """Where ``pack_small`` packs, as changes of a run's configuration."""
    return [f"data.datasets.{name}=data/gpu/{name}" for name in ("robot", "web")]


def pack_small() -> None:
    """A few pictures of 224 px."""
    changes = ["source.size=224", "source.episodes=40", "shard_size=5"]
    pack_from(Path("configs/pack/emergent_robot.yaml"), Path("data/gpu/robot"), changes)
    pack_from(
        Path("configs/pack/emergent_web.yaml"),
        Path("data/gpu/web"),
        ["source.web.size=224", "source.samples=160", "shard_size=20"],
    )


def measured(size: str) -> dict[str, str]:
    """A row: training in bf16 with 64 pictures a batch, one action with a plan of 40 tokens before it."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # memory is its own
            overrides = [f"policy.decoder={size}", *SHAPES, *data_sets(), "train.batch_size=64"]
            found = pool.submit(measure, "configs/scaling/robot_gpu.yaml", overrides, 5).result()
    except torch.OutOfMemoryError:
        return {"device": torch.cuda.get_device_name(), "size": size, "batch": "64", "peak_memory_mb": "out of memory"}
    return {c: str(found[c]) for c in COLUMNS if c in found} | {"size": size}


def tables() -> dict[str, str]:
    """The README's."""
    rows = []
    for r in read_table(HERE / "results.csv", COLUMNS):
        if not r["step_s"]:
            rows.append([r["device"], r["size"], "", "", "", "", r["peak_memory_mb"]])
            continue
        step, memory = float(r["step_s"]), float(r["peak_memory_mb"]) / 1024
        speed = float(r["flops_step"]) / step / 1e12
        rows.append([
            r["device"], r["size"], f"{int(r['parameters']) / 1e6:.0f}M", f"{1000 * step:.0f} ms", f"{speed:.0f}", f"{1000 * float(r['act_s']):.0f} ms", f"{memory:.0f} GiB",
        ])  # fmt: skip
    header = ["GPU", "decoder", "parameters, eyes and all", "a step of 64 pictures", "TFLOP/s", "an action behind a plan", "memory"]
    waited, free = json.loads((HERE / "loop.json").read_text())
    both = {"a step": (waited["step_ms"], free["step_ms"])} | {p: (v, free["parts_ms"][p]) for p, v in waited["parts_ms"].items()}
    parts = [[part, f"{a:.0f} ms", f"{b:.0f} ms"] for part, (a, b) in both.items()]
    runs = [
        [r["size"], r["data"], f"{int(r['parameters']) / 1e6:.0f}M", r["samples"], f"{float(r['val_loss_robot']):.2f}", f"{float(r['val_loss_web']):.2f}", f"{r['wins']} of {r['episodes']}"]
        for r in read_rows(HERE / "ladder" / "results.csv")
    ]  # fmt: skip
    return {
        "costs": markdown(header, rows), "loop": markdown(["", "waiting for the GPU around every part", "as it runs"], parts),
        "ladder": markdown(["decoder", "data", "parameters, eyes and all", "samples", "held-out loss, robot", "web", "episodes won"], runs),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="the README's table again")
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
