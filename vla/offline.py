"""Open loop: a policy's actions on recorded frames beside the recorded ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from vla.actions.bins import UniformBins
from vla.data.pipeline import BatchStream, WindowConfig


@dataclass
class OfflineResult:
    """frames: compared; l1_A: mean error of each dim in robot units, over the steps inside the episodes; l1_share_A: the same as a share of
    the dim's range; same_bin_A: share of numbers that fall in the recorded number's bin (256 uniform ones)."""

    names: tuple[str, ...]
    frames: int
    l1_A: np.ndarray
    l1_share_A: np.ndarray
    same_bin_A: np.ndarray


def offline(
    policy: Any, data: str | Path, split: str = "val", limit: int | None = None, batch_size: int = 32, progress: bool = True
) -> OfflineResult:
    """Every frame of a split once (or its first ``limit``), each from the recorded observation.

    Raises:
        ValueError: the split is empty.
    """
    contract = policy.contract
    window = WindowConfig(cameras=contract.cameras, history=contract.history, horizon=contract.horizon, segments=1)
    stream = BatchStream({"data": str(data)}, {"data": 1.0}, window, batch_size, False, limit=limit, split=split)
    bins = UniformBins(256, action_dim=contract.action_space.dim)
    errors, same = [], []
    for batch in track(stream, "offline", disable=not progress):
        assert batch.images_BVTCHW is not None and batch.actions_KHA is not None and batch.mask_KH is not None
        made = torch.from_numpy(policy.act(batch.images_BVTCHW, batch.instructions))
        normal = policy.normaliser.cpu()
        errors.append((made - batch.actions_KHA).abs()[batch.mask_KH])
        same.append((bins.index(normal(made)) == bins.index(normal(batch.actions_KHA)))[batch.mask_KH])
        policy.normaliser.to(policy.device)
    if not errors:
        raise ValueError(f"{data}: its {split} split is empty; choose another split or pack more shards")
    space = contract.action_space
    l1_A = torch.cat(errors).mean(0).numpy()
    share = l1_A / (np.array(space.high) - np.array(space.low))
    return OfflineResult(space.names, sum(len(e) for e in errors), l1_A, share, torch.cat(same).float().mean(0).numpy())
