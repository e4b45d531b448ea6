"""The Lightning data module of a training run."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from vla.data.config import DataConfig
from vla.data.packed import advice
from vla.data.pipeline import BatchStream
from vla.data.splits import load_split
from vla.data.subset import shortages, subset_rows
from vla.data.windows import open_datasets
from vla.errors import DataError
from vla.types import Batch
from vla.utils.notes import note

_ORDER = 2  # version of the order in which ``BatchStream`` draws batches


def sample_chunks(
    config: DataConfig, count: int = 2000, padded: bool = True
) -> dict[str, torch.Tensor]:
    """Robot -> (n, H, A) action chunks in robot units, for components that are fitted to actions.

    They are ``count`` windows of random training episodes of the robot's first data set, also if
    the run trains on a part of them: runs on parts of a data set have the same normalisation.

    Args:
        padded: past the end of an episode or its instruction the last action is repeated;
            otherwise these are NaN.
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
        rows = dataset.packed.rows("train")
        rows = random.Random(0).sample(rows, len(rows))  # not those of the first task only
        for item in islice(dataset.windows(rows), count):
            actions, ahead = item["steps"]["actions"], item["t"] + np.arange(horizon)
            chunk = actions[np.minimum(ahead, item["end"] - 1)] - item["origin"]
            inside = ahead[:, None] < item["end"]
            chunks.append(chunk if padded else np.where(inside, chunk, np.nan))
        found[robot] = torch.from_numpy(np.array(chunks)).float()
    return found


def check_splits(config: DataConfig, validation: bool) -> None:
    """Refuse data that a run cannot train on, or cannot validate on, before its first step.

    Args:
        config: the data of the run; data sets with weight 0 are not checked.
        validation: the run decides by its validation, for example when to stop.

    Raises:
        DataError: a data set is damaged, or its train split (or validation split) is empty.
    """
    for name, dataset in open_datasets(config).items():
        if config.sampling_weights.get(name, 0) <= 0:
            continue
        folder = dataset.folder
        for shortage in shortages(dataset.packed, config):
            note(f"{shortage}; all of them are used")
        if not dataset.packed.rows("train"):
            raise DataError(f"{folder}: no training samples; {advice(folder)}")
        if validation and not subset_rows(dataset.packed, config, "val"):
            raise DataError(
                f"{folder}: no validation samples, but train.patience needs them; "
                f"{advice(folder)}, or train with train.patience=0"
            )


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

    The checkpoint has ``batches``, the number of training batches used, and checksums of the
    splits. A resumed stream starts after these batches.
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
        return {"batches": self.batches, "splits": self._splits(), "order": _ORDER}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint, before the loaders are made.

        Raises:
            DataError: a data set was split again since the run started.
        """
        for name, digest in self._splits().items():
            if state_dict["splits"].get(name) != digest:
                raise DataError(
                    f"{self.config.datasets[name]}: split again since this run started, so its "
                    "validation episodes may have been trained on; restore the split or choose "
                    "another output_dir"
                )
        self.batches = int(state_dict["batches"])
        if state_dict.get("order") != _ORDER:
            note("the run began with a version that drew batches in another order")

    def _splits(self) -> dict[str, str]:
        folders = {n: Path(f) for n, f in sorted(self.config.datasets.items())}
        return {name: load_split(folder).digest for name, folder in folders.items()}

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
