"""Time the parts of a step of ``vla train``, with and without waiting for the GPU around each.

Writes loop.json. Usage: python experiments/gpu/loop.py [key=value ...], changes of
configs/scaling/robot_gpu.yaml
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lightning
import torch
from run import SHAPES, data_sets, pack_small

from vla.data.datamodule import Streams
from vla.models.decoders import causal
from vla.policies.base import BasePolicy
from vla.policies.vla import VLAPolicy
from vla.training.run import train_from_file
from vla.utils.device import synchronize
from vla.utils.io import write_json

HERE, STEPS, COUNTED = Path(__file__).parent, 40, 30
PARTS: dict[str, tuple[Any, str]] = {
    "batch to the GPU": (Streams, "transfer_batch_to_device"),
    "losses and metrics": (BasePolicy, "training_step"),
    "losses": (VLAPolicy, "losses"),
    "vision encoder, each of two passes": (VLAPolicy, "prefix"),
    "decoder, each of two passes": (causal.CausalDecoder, "encode_texts"),
    "of it, packing texts": (causal, "pack_texts"),
    "of it, the model's forward": (causal.CausalDecoder, "forward"),
    "backward": (torch.Tensor, "backward"),
}


class _Clock(lightning.Callback):
    def __init__(self, at: list[float]) -> None:
        self.at = at

    def on_train_batch_end(self, *_: Any) -> None:
        self.at.append(time.perf_counter())


def measured(waiting: bool, changes: list[str]) -> dict[str, Any]:
    """Milliseconds of a step and its parts, medians of the last steps.

    ``waiting``: synchronise with the GPU around every part. It replaces methods, so it
    needs a process of its own.
    """
    spent, at, shapes = defaultdict[str, list[float]](list), list[float](), list[list[int]]()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def wrap(owner: Any, name: str, part: str) -> None:
        inner = getattr(owner, name)

        def timed(*a: Any, **k: Any) -> Any:
            if waiting:
                synchronize(device)
            start = time.perf_counter()
            found = inner(*a, **k)
            if waiting:
                synchronize(device)
            spent[part].append(time.perf_counter() - start)
            if name == "pack_texts":
                shapes.append(list(found.positions_BL.shape))
            return found

        setattr(owner, name, timed)

    for part, (owner, name) in PARTS.items():
        wrap(owner, name, part)
    make = lightning.Trainer.__init__

    def with_clock(self: Any, *a: Any, callbacks: Any = (), **k: Any) -> None:
        make(self, *a, callbacks=[*callbacks, _Clock(at)], **k)

    lightning.Trainer.__init__ = with_clock  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        own = [
            f"output_dir={folder}",
            f"train.steps={STEPS}",
            "train.val_every=1000",
            "train.save_every=1000",
            "data.shuffle=200",
        ]
        train_from_file(
            "configs/scaling/robot_gpu.yaml",
            [*SHAPES, *data_sets(), *own, *changes],
            progress=False,
        )
    steps = [1000 * (b - a) for a, b in zip(at[-COUNTED:], at[1 - COUNTED :], strict=False)]
    return {
        "waiting": waiting,
        "changes": changes,
        "step_ms": statistics.median(steps),
        "parts_ms": {p: 1000 * statistics.median(v[-COUNTED:]) for p, v in spent.items()},
        "rows_and_tokens": shapes[-12:],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }


def main() -> None:
    """Measure both ways and write loop.json."""
    pack_small()
    found = []
    for waiting in (True, False):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(measured, waiting, sys.argv[1:]).result())
    write_json(HERE / "loop.json", found)


if __name__ == "__main__":
    main()
