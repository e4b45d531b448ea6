"""Table, plot and JSON of an open-loop evaluation."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from vla.evaluation.offline import OfflineResult, offline
from vla.policies.checkpoint import load_policy
from vla.policies.decoding import DecodingOptions, set_decoding
from vla.utils.io import write_json
from vla.utils.tables import print_table
from vla.utils.text import count

_NAMED = 6  # constant dimensions that the table names


def rows(result: OfflineResult) -> list[dict[str, str]]:
    """Printable rows: one per action dimension, and the mean as a share of the ranges.

    Constant dimensions share one row, which has their largest error, and are not in the mean.
    """
    counted, out = result.averaged, []
    for k in np.flatnonzero(counted):
        cells = {n: f"{v[k]:.4g}" for n, v in result.errors.items()}
        out.append(_row(result.names[k], cells, result.same_bin[k]))
    share = {n: (v / result.range)[counted].mean() for n, v in result.errors.items()}
    mean = {n: f"{100 * value:.2f} %" for n, value in share.items()}
    out.append(_row("mean, of range", mean, result.same_bin[counted].mean()))
    still = np.flatnonzero(~counted)
    if len(still):
        names = ", ".join(result.names[k] for k in still[:_NAMED])
        more = f" and {len(still) - _NAMED} more" if len(still) > _NAMED else ""
        cells = {n: f"{v[still].max():.4g}" for n, v in result.errors.items()}
        label = f"{len(still)} constant, not in the mean: {names}{more}"
        out.append(_row(label, cells, result.same_bin[still].min()))
    return out


def _row(label: str, cells: dict[str, str], same_bin: float) -> dict[str, str]:
    return {"dim": label, **cells, "same bin": f"{100 * same_bin:.1f} %"}


def plot(result: OfflineResult, episodes: int = 3, most_dims: int = 8) -> bytes:
    """Predicted and recorded trajectories as PNG.

    One row per episode, one column for each of the ``most_dims`` dimensions that vary most.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = result.trajectories[:: max(1, len(result.trajectories) // episodes)][:episodes]
    spread = np.concatenate([t.recorded for t in result.trajectories]).std(0) / result.range
    dims = sorted(np.argsort(-spread)[:most_dims].tolist())
    figure, axes = plt.subplots(
        len(shown),
        len(dims),
        figsize=(2.2 * len(dims), 1.8 * len(shown) + 0.4),
        constrained_layout=True,
        squeeze=False,
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


def run_offline(
    policy_dir: Path,
    data: Path,
    split: str,
    episodes: int | None,
    out: Path | None,
    robot: str | None = None,
    decoding: DecodingOptions | None = None,
) -> None:
    """``vla eval-offline``: a table, and with ``out`` also offline.json and trajectories.png.

    Raises:
        ConfigError: the policy cannot decode as ``decoding`` says.
    """
    policy = load_policy(policy_dir).robot(robot)
    set_decoding(policy, decoding)
    result = offline(policy, data, split, episodes)
    print_table(
        rows(result),
        f"{policy_dir} on {data} ({split}): mean absolute error in robot units, "
        f"{count(result.frames, 'frame')} of {count(len(result.trajectories), 'episode')}",
    )
    planned = sum(bool(plan) for t in result.trajectories for plan in t.plans)
    if planned:
        print(f"the policy wrote a plan for {planned} of {result.frames} frames")
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    by_episode = [
        {
            "key": t.key,
            "instruction": t.instruction,
            "l1": np.abs(t.predicted - t.recorded).mean(0).tolist(),
            **({"plans": t.plans} if planned else {}),
        }
        for t in result.trajectories
    ]
    about = {
        "data": str(data),
        "split": split,
        "names": result.names,
        "frames": result.frames,
        "errors": {name: error.tolist() for name, error in result.errors.items()},
        "same_bin": result.same_bin.tolist(),
        "range": result.range.tolist(),
        "constant": [n for n, still in zip(result.names, result.constant, strict=True) if still],
        "episodes": by_episode,
    }
    write_json(out / "offline.json", about)
    (out / "trajectories.png").write_bytes(plot(result))
