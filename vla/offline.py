"""Open loop: a policy's actions on recorded frames beside the recorded ones, and beside policies that see nothing."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from vla.actions.bins import UniformBins
from vla.data.manifest import DataError, load_manifest
from vla.data.pictures import decode_image
from vla.data.relative import reference
from vla.data.samples import cut_frame, read_json, read_steps
from vla.data.shards import untarred


@dataclass
class Trajectory:
    """One episode: recorded and predicted (T, A) in robot units (of a chunk, the first action)."""

    key: str
    instruction: str
    recorded: np.ndarray
    predicted: np.ndarray


@dataclass
class OfflineResult:
    """Means over all frames. errors: who -> (A,) absolute errors in robot units, of first actions and (", chunk") of whole chunks as far as the episode
    goes: the policy; the mean action of the training data; the last recorded action, held (before the first one: the mean); the present state, where
    state and action have the same names (absolute targets). same_bin: share of the policy's numbers in the recorded number's bin (256 uniform ones)."""

    names: tuple[str, ...]
    frames: int
    errors: dict[str, np.ndarray]
    same_bin: np.ndarray
    range: np.ndarray
    trajectories: list[Trajectory]

    @property
    def l1(self) -> np.ndarray:
        """The first action's error."""
        return self.errors["policy"]

    @property
    def l1_share(self) -> np.ndarray:
        """The first action's error as a share of the dim's range."""
        return self.l1 / self.range


def _episodes(data: Path, split: str) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]]:
    manifest = load_manifest(data)
    shards = manifest["splits"][split]
    if not shards:
        raise DataError(f"{data}: its {split} split is empty; choose another split, or pack with smaller shards")
    for sample in untarred(data, iter([{"url": str(data / s)} for s in shards])):
        yield read_json(sample), read_steps(sample), sample


def offline(
    policy: Any, data: str | Path, split: str = "val", episodes: int | None = None, batch: int = 32, progress: bool = True
) -> OfflineResult:
    """Every frame of a split's episodes (or of the first ``episodes``), each from the recorded observation.

    Raises:
        DataError: the split is empty, or a camera that the policy needs is missing.
    """
    contract = policy.contract
    space, horizon = contract.action_space, contract.horizon
    bins = UniformBins(256, action_dim=space.dim)
    mean = (
        contract.statistics["actions"]["mean"]
        if contract.statistics.get("actions")
        else load_manifest(data)["statistics"]["actions"]["mean"]
    )
    source = load_manifest(data)["identity"]["source"]
    absolute = tuple(source.get("state", ()))[: space.dim] == space.names and not source.get("mapping", {}).get("delta")
    found: list[Trajectory] = []
    origins: list[np.ndarray] = []  # what actions are learned as differences to
    missed: dict[str, list[np.ndarray]] = {}
    for meta, steps, sample in track(islice(_episodes(Path(data), split), episodes), "offline", disable=not progress):
        actions, length = steps["actions"], len(steps["actions"])
        if actions.shape[1] != space.dim:
            raise DataError(
                f"{data}: actions of {actions.shape[1]} numbers, the policy gives {space.dim} ({', '.join(space.names)})"
            )
        views = [[decode_image(cut_frame(sample, meta, c, t), sample["__key__"]) for t in range(length)] for c in contract.cameras]
        frames = torch.from_numpy(np.array(views)).permute(0, 1, 4, 2, 3).contiguous()  # V T C H W
        past = torch.arange(length)[:, None] - torch.arange(contract.history - 1, -1, -1)
        images = frames[:, past.clamp(min=0)].transpose(0, 1)
        felt = {}
        if contract.state_dim:
            if "state" not in steps or steps["state"].shape[1] != contract.state_dim:
                raise DataError(
                    f"{data}: the policy looks at a state of {contract.state_dim} numbers, this data has another or none"
                )
            felt = {"state_BTP": torch.from_numpy(steps["state"])[past.clamp(min=0)].float()}
        parts = [slice(k, k + batch) for k in range(0, length, batch)]
        told = [meta["instruction"]] * length
        chunks = np.concatenate([policy.act(images[p], told[p], **{k: v[p] for k, v in felt.items()}) for p in parts])
        ahead = np.arange(length)[:, None] + np.arange(horizon)
        true, inside = actions[np.minimum(ahead, length - 1)], ahead < length
        found.append(Trajectory(sample["__key__"], meta["instruction"], actions, chunks[:, 0]))
        dims = contract.relative
        origins.append(np.stack([reference(s, dims) for s in steps["state"]]) if dims else np.zeros_like(actions))
        guesses = {
            "policy": chunks,
            "mean action": np.broadcast_to(np.array(mean, np.float32), actions.shape)[:, None],
            "last action": np.array([mean, *actions[:-1]], np.float32)[:, None],
        }
        for name, guess in (guesses | ({"present state": steps["state"][:, None, : space.dim]} if absolute else {})).items():
            missed.setdefault(name, []).append(np.abs(guess[:, 0] - actions))
            if horizon > 1:
                missed.setdefault(f"{name}, chunk", []).append(np.abs(guess - true)[inside])
    recorded, predicted = (np.concatenate([getattr(t, k) for t in found]) for k in ("recorded", "predicted"))
    normal = copy.deepcopy(policy.normaliser).cpu()
    origin = np.concatenate(origins)
    first = [bins.index(normal(torch.from_numpy(v - origin)[:, None].expand(-1, horizon, -1))[:, 0]) for v in (predicted, recorded)]
    same = first[0] == first[1]
    means = {name: np.concatenate(parts).mean(0) for name, parts in missed.items()}
    share = same.float().mean(0).numpy()
    return OfflineResult(space.names, len(recorded), means, share, np.array(space.high) - np.array(space.low), found)


def rows(result: OfflineResult) -> list[dict[str, str]]:
    """One printable row a dim, and their mean as shares of the ranges."""
    out = []
    for k, name in enumerate(result.names):
        cells = {n: f"{v[k]:.4g}" for n, v in result.errors.items()}
        out.append({"dim": name, **cells, "same bin": f"{100 * result.same_bin[k]:.1f} %"})
    mean = {n: f"{100 * float((v / result.range).mean()):.2f} %" for n, v in result.errors.items()}
    return [*out, {"dim": "mean, of range", **mean, "same bin": f"{100 * result.same_bin.mean():.1f} %"}]


def plot(result: OfflineResult, episodes: int = 3, most_dims: int = 8) -> bytes:
    """Predicted beside recorded trajectories, a row an episode, a column a dim (those that move most), as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = result.trajectories[:: max(1, len(result.trajectories) // episodes)][:episodes]
    spread = np.concatenate([t.recorded for t in result.trajectories]).std(0) / result.range
    dims = sorted(np.argsort(-spread)[:most_dims].tolist())
    figure, axes = plt.subplots(
        len(shown), len(dims), figsize=(2.2 * len(dims), 1.8 * len(shown) + 0.4), constrained_layout=True, squeeze=False
    )
    for row, (line, trajectory) in enumerate(zip(axes, shown, strict=True)):
        for axis, k in zip(line, dims, strict=True):
            axis.plot(trajectory.recorded[:, k], color="0.3", lw=1.8, label="recorded")
            axis.plot(trajectory.predicted[:, k], color="C1", lw=1.2, label="predicted")
            axis.set_title(result.names[k] if row == 0 else "", fontsize=8)
            axis.set_xlabel("frame" if row == len(shown) - 1 else "", fontsize=7)
            axis.tick_params(labelsize=6)
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(f"{trajectory.instruction[:26]}", fontsize=7)
    axes[0][0].legend(fontsize=6, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    plt.close(figure)
    return buffer.getvalue()


def run_offline(policy_dir: Path, data: Path, split: str, episodes: int | None, out: Path | None, robot: str | None = None) -> None:
    """``vla eval --offline``: table, JSON and plot."""
    from vla.data.manifest import write_json
    from vla.module import PolicyModule
    from vla.report import print_table

    result = offline(PolicyModule.load(policy_dir).robot(robot), data, split, episodes)
    print_table(
        rows(result),
        f"{policy_dir} on {data} ({split}): mean absolute error in robot units, {result.frames} frames of {len(result.trajectories)} episodes",
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        figures = {
            "errors": {k: v.tolist() for k, v in result.errors.items()}, "same_bin": result.same_bin.tolist(), "range": result.range.tolist(),
        }  # fmt: skip
        each = [
            {"key": t.key, "instruction": t.instruction, "l1": np.abs(t.predicted - t.recorded).mean(0).tolist()}
            for t in result.trajectories
        ]
        write_json(
            out / "offline.json",
            {"data": str(data), "split": split, "names": result.names, "frames": result.frames, **figures, "episodes": each},
        )
        (out / "trajectories.png").write_bytes(plot(result))
