"""The Lightning data module of a training run."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import islice
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from vla.data.config import DataConfig
from vla.data.pipeline import BatchStream
from vla.data.windows import open_datasets
from vla.types import Batch


def sample_chunks(
    config: DataConfig, count: int = 2000, padded: bool = True
) -> dict[str, torch.Tensor]:
    """Robot -> (n, H, A) action chunks in robot units, for components that are fitted to actions.

    They are the first ``count`` training windows of the robot's first data set.

    Args:
        padded: past an episode's end the last action is repeated; otherwise these are NaN.
    """
    found: dict[str, torch.Tensor] = {}
    horizon = config.window.horizon
    for name in config.datasets:
        robot = config.robots.get(name, name)
        if robot in found:
            continue
        only = {name: config.datasets[name]}
        relative = tuple({name} & set(config.relative))
        dataset = open_datasets(replace(config, datasets=only, relative=relative))[name]
        if dataset.manifest.kind != "episode":
            continue
        chunks = []
        urls = iter([{"url": s} for s in dataset.shards("train")])
        for item in islice(dataset.windows(urls), count):
            actions, ahead = item["steps"]["actions"], item["t"] + np.arange(horizon)
            chunk = actions[np.minimum(ahead, len(actions) - 1)] - item["origin"]
            inside = ahead[:, None] < len(actions)
            chunks.append(chunk if padded else np.where(inside, chunk, np.nan))
        found[robot] = torch.from_numpy(np.array(chunks)).float()
    return found


def _finish_step_first(worker: int) -> None:
    """Keep loader workers alive while an interrupted run finishes its step.

    Ctrl-C, and SIGTERM from a scheduler, reach the whole process group. Workers ignore Ctrl-C.
    They end with the second SIGTERM, or 60 s after the first.
    """

    def end_later(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(60)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_later)


class Streams(lightning.LightningDataModule):
    """Training and validation streams.

    The checkpoint has ``batches``, the number of training batches used. A resumed stream starts
    after them.
    """

    def __init__(self, config: DataConfig, batch_size: int, seed: int, val_windows: int) -> None:
        super().__init__()
        self.config, self.batch_size, self.seed = config, batch_size, seed
        self.val_windows = val_windows  # validation windows of each data set
        self.batches = 0
        self.stream: BatchStream | None = None

    def _stream(self, train: bool) -> BatchStream:
        return BatchStream(
            self.config,
            self.batch_size,
            train,
            self.seed,
            start=self.batches if train else 0,
            rank=self.trainer.global_rank if self.trainer else 0,
            world=self.trainer.world_size if self.trainer else 1,
            limit=None if train else self.val_windows,
        )

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint, before the loaders are made."""
        self.batches = int(state_dict["batches"])

    def train_dataloader(self) -> DataLoader[Batch]:
        """The endless training stream."""
        self.stream = self._stream(True)
        workers = self.config.workers
        # Lightning ends persistent workers with the run. It leaves others to the interpreter.
        return DataLoader(
            self.stream,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_finish_step_first,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The finite validation stream, the same windows every time."""
        return DataLoader(self._stream(False), batch_size=None, num_workers=0)

    def transfer_batch_to_device(self, batch: Batch, device: object, dataloader_idx: int) -> Batch:
        """``Batch`` is our own class, so Lightning cannot move it."""
        return batch.to(device)  # type: ignore[arg-type]
