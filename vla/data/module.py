"""The data of a run, for Lightning."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from vla.data.augment import AugmentConfig
from vla.data.manifest import load_manifest
from vla.data.pipeline import BatchStream, WindowConfig
from vla.schema import Batch


@dataclass(frozen=True)
class DataConfig:
    """datasets: name -> folder of shards; mixture: name -> sampling weight; robots: data set -> name of its robot (its own name if not given;
    data sets of one robot share action space and statistics); cameras: data set -> its cameras (``window.cameras`` if not given); relative: data sets whose absolute targets
    (actions called like a state dim) are learned as differences to the present state; augment: robots' pictures varied in training; shuffle: windows in
    the buffer; workers: loader processes (on few cores they compete with training: 0)."""

    datasets: dict[str, str]
    mixture: dict[str, float]
    window: WindowConfig = field(default_factory=WindowConfig)
    robots: dict[str, str] = field(default_factory=dict)
    cameras: dict[str, tuple[str, ...]] = field(default_factory=dict)
    relative: tuple[str, ...] = ()
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    shuffle: int = 4000
    workers: int = 0


def sample_chunks(config: DataConfig, count: int = 2000, padded: bool = True) -> dict[str, torch.Tensor]:
    """Robot -> (n, H, A) action chunks in robot units from its first data set's first shards, for what learns from them; padded: see ``BatchStream.chunks``."""
    found: dict[str, torch.Tensor] = {}
    for name, folder in config.datasets.items():
        robot = config.robots.get(name, name)
        if load_manifest(folder)["kind"] == "episode" and robot not in found:
            window, cameras = replace(config.window, segments=1), config.cameras
            relative = tuple({name} & set(config.relative))
            stream = BatchStream({name: folder}, {name: 1.0}, window, 1, True, shuffle=1, cameras=cameras, relative=relative)
            found[robot] = stream.chunks(name, count, padded)
    return found


def _outlive_the_step(worker: int) -> None:
    """Ctrl-C, and SIGTERM from a scheduler, reach the whole process group. The run finishes its step and needs its workers for that: they leave Ctrl-C to it,
    and end with the second SIGTERM, or a minute after the first."""

    def end_later(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(60)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_later)


class Streams(lightning.LightningDataModule):
    """Training and validation streams. ``batches`` (used so far) travels with the checkpoint; a resumed stream starts behind them."""

    def __init__(self, config: DataConfig, batch_size: int, seed: int, val_windows: int) -> None:
        super().__init__()
        self.config, self.batch_size, self.seed, self.val_windows = config, batch_size, seed, val_windows
        self.batches = 0
        self.stream: BatchStream | None = None

    def _stream(self, train: bool) -> BatchStream:
        rank = self.trainer.global_rank if self.trainer else 0
        world = self.trainer.world_size if self.trainer else 1
        return BatchStream(
            self.config.datasets, self.config.mixture, self.config.window, self.batch_size, train, self.seed, self.config.shuffle,
            start=self.batches if train else 0, rank=rank, world=world, limit=None if train else self.val_windows,
            robots=self.config.robots, cameras=self.config.cameras, relative=self.config.relative, augment=self.config.augment,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint, before the loaders are made."""
        self.batches = int(state_dict["batches"])

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless."""
        self.stream = self._stream(True)
        workers = self.config.workers
        return DataLoader(  # persistent: Lightning ends such workers with the run, whatever ends it; others it leaves to the interpreter's exit
            self.stream, batch_size=None, num_workers=workers, persistent_workers=workers > 0, worker_init_fn=_outlive_the_step
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Finite, the same windows every time."""
        return DataLoader(self._stream(False), batch_size=None, num_workers=0)

    def transfer_batch_to_device(self, batch: Batch, device: object, dataloader_idx: int) -> Batch:
        """Batch is ours, so Lightning cannot move it."""
        return batch.to(device)  # type: ignore[arg-type]
