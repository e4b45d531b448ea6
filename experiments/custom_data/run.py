"""Fine-tune on recordings of two robots and measure errors on held-out episodes.

Bridge (WidowX, 7 action dimensions) and Unitree G1 (26 joints); rows go to results.csv. Finished
runs are skipped, and several data sets may run in parallel.
Usage: python experiments/custom_data/run.py [--data NAME] [--policy FOLDER] [--table]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.config import load_config
from vla.data.pack import pack_from
from vla.evaluation.offline import offline
from vla.evaluation.offline_report import plot
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import add_rows, markdown, put, read_table

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "realdata"
SEEDS = (0, 1, 2)
STARTS = {  # changes of config.yaml; "fine-tuned" starts from a saved policy
    "fine-tuned, LoRA": (
        "optim.frozen=[vision]",
        "policy.decoder.lora={rank: 16}",
        "optim.lr=0.001",
    ),
    "fine-tuned, everything": (),
    "from scratch": (),
}
HIDDEN = "fine-tuned, everything"  # not in the README


@dataclass(frozen=True)
class Recorded:
    """A folder of recordings, its camera, and changes of its packing and training."""

    folder: str
    camera: str
    packing: tuple[str, ...]
    incomplete: bool = False
    changes: tuple[str, ...] = ()


_SIZE = "source.mapping.size=64"
_PREVIOUS = "source.mapping.append_previous_action=true"
_SPLIT = ("shard_size=5", "val_fraction=0.2")
_BRIDGE = Recorded(
    "bridge_rlds",
    "image_0",
    (_SIZE, "source.mapping.fps=5", "source.mapping.binary.action_6=0.5", *_SPLIT),
)
_G1 = Recorded(  # joint targets, so differences to the present joints can be learned
    "g1_lerobot21",
    "cam_high",
    (_SIZE, "source.mapping.rate_hz=5", "shard_size=1", "val_fraction=0.25"),
    incomplete=True,
    changes=("data.relative=[arm]",),
)
DATA = {  # previous: the state ends with the previous action; targets are differences to it
    "bridge": _BRIDGE,
    "g1": _G1,
    "bridge_previous": replace(
        _BRIDGE, packing=(*_BRIDGE.packing, _PREVIOUS), changes=("data.relative=[arm]",)
    ),
    "g1_previous": replace(_G1, packing=(*_G1.packing, _PREVIOUS)),
}


def packed(name: str) -> Path:
    """Folder of the packed data set; five (Bridge) and two (G1) episodes are held out."""
    of = DATA[name]
    pack_from(
        SHARED / of.folder, Path("data/custom") / name, list(of.packing), skip_missing=of.incomplete
    )
    return Path("data/custom") / name


def run(name: str, start: str, seed: int, policy: Path) -> list[dict[str, Any]]:
    """Train once; rows of errors on held-out episodes by action dimension and predictor."""
    data, of = packed(name), DATA[name]
    changes = [
        f"output_dir=runs/custom/{name}_{start.replace(', ', '-').replace(' ', '_')}_{seed}",
        f"train.seed={seed}",
        f"data.datasets.arm={data}",
        f"data.window.cameras=[{of.camera}]",
        *of.changes,
        *STARTS[start],
    ]
    config = load_config(
        HERE / "config.yaml",
        changes + ([f"init_from={policy}"] if "fine-tuned" in start else []),
        RunConfig,
    )
    result = offline(load_policy(train(config)).robot(), data, progress=False)
    if "previous" in name and start == next(iter(STARTS)) and seed == SEEDS[0]:
        (HERE / f"{name}.png").write_bytes(plot(result))
    common = {
        "data": name,
        "start": start,
        "seed": seed,
        "episodes": len(result.trajectories),
        "frames": result.frames,
    }
    return [
        common
        | {"dim": dim, "who": who, "l1": f"{values[k]:.6g}", "range": f"{result.range[k]:.6g}"}
        for who, values in result.errors.items()
        for k, dim in enumerate(result.names)
    ]


def table(rows: list[dict[str, str]]) -> str:
    """Markdown: errors in % of each dimension's range, averaged over dimensions and seeds."""
    cells: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        name, _, part = row["who"].partition(", ")
        predictor = row["start"] if name == "policy" else name
        share = 100 * float(row["l1"]) / float(row["range"])
        again = row["data"].endswith("_previous") and name != "policy"  # as without "_previous"
        if not again:
            cells[row["data"], predictor, part or "next"][row["seed"]].append(share)
    lines = []
    for data, predictor in dict.fromkeys(k[:2] for k in cells):
        shown = []
        for part in ("next", "chunk"):
            seeds = [float(np.mean(v)) for v in cells[data, predictor, part].values()]
            shown.append(f"{np.mean(seeds):.2f}")
        lines.append([data, predictor, *shown])
    return markdown(["data", "predictor", "next action, %", "next 8 actions, %"], lines)


def tables() -> dict[str, str]:
    """Tables of the README by marker, from ``results.csv``."""
    rows = [r for r in read_table(HERE / "results.csv") if r["start"] != HIDDEN]
    return {"errors": table(rows)}


def main() -> None:
    """Execute all missing runs and write the README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, default=HERE.parent / "tabletop_seen" / "policy")
    parser.add_argument("--data", choices=list(DATA), help="only this data set")
    parser.add_argument("--table", action="store_true", help="write the README's table only")
    arguments = parser.parse_args()
    path = HERE / "results.csv"
    for name in () if arguments.table else [arguments.data] if arguments.data else DATA:
        for seed in SEEDS:
            for start in STARTS:
                if any(
                    (r["data"], r["start"], r["seed"]) == (name, start, str(seed))
                    for r in read_table(path)
                ):
                    continue
                new = run(name, start, seed, arguments.policy)
                add_rows(path, new, Path("runs/custom/results.lock"))
    put(HERE / "README.md", "errors", tables()["errors"])


if __name__ == "__main__":
    main()
