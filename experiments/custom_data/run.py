"""Does a tabletop policy help with other robots' recordings? Bridge (WidowX, 7 dims) and G1 (26 joints) on held-out episodes, rows to results.csv.

Usage: python experiments/custom_data/run.py [--data bridge] [--policy experiments/tabletop_seen/policy] [--table]; finished runs are skipped, an interrupted one
continues; bridge and g1 may run side by side.
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
from vla.module import PolicyModule
from vla.offline import offline, plot
from vla.tables import add_rows, markdown, put, read_table
from vla.train import RunConfig, train

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "realdata"
SEEDS = (0, 1, 2)
STARTS = {  # what each changes; fine-tuned: from the tabletop's policy
    "fine-tuned, LoRA": ("optim.frozen=[vision]", "policy.decoder.lora={rank: 16}", "optim.lr=0.001"),
    "fine-tuned, everything": (),
    "from scratch": (),
}


@dataclass(frozen=True)
class Recorded:
    """A folder of ../shared/realdata, its camera, how it is packed, and what its training changes."""

    folder: str
    camera: str
    packing: tuple[str, ...]
    incomplete: bool = False
    changes: tuple[str, ...] = ()


_SIZE = "source.mapping.size=64"
_TOLD = "source.mapping.last_action=true"
_SPLIT = ("shard_size=5", "val_fraction=0.2")
_BRIDGE = Recorded("bridge_rlds", "image_0", (_SIZE, "source.mapping.fps=5", "source.mapping.binary.action_6=0.5", *_SPLIT))
_G1 = Recorded(  # joint targets, so differences to the present joints can be learned
    "g1_lerobot21",
    "cam_high",
    (_SIZE, "source.mapping.rate_hz=5", "shard_size=1", "val_fraction=0.25"),
    incomplete=True,
    changes=("data.relative=[arm]",),
)
DATA = {  # told: the state ends with the last action, and differences to it are learned
    "bridge": _BRIDGE,
    "g1": _G1,
    "bridge_told": replace(_BRIDGE, packing=(*_BRIDGE.packing, _TOLD), changes=("data.relative=[arm]",)),
    "g1_told": replace(_G1, packing=(*_G1.packing, _TOLD)),
}


def packed(name: str) -> Path:
    """The data set as shards; five and two episodes are held out."""
    of = DATA[name]
    pack_from(SHARED / of.folder, Path("data/custom") / name, list(of.packing), skip_missing=of.incomplete)
    return Path("data/custom") / name


def run(name: str, start: str, seed: int, policy: Path) -> list[dict[str, Any]]:
    """One training run and its errors on held-out episodes: a row a dim and a guesser."""
    data, of = packed(name), DATA[name]
    changes = [
        f"run=runs/custom/{name}_{start.replace(', ', '-').replace(' ', '_')}_{seed}",
        f"train.seed={seed}",
        f"data.datasets.arm={data}",
        f"data.window.cameras=[{of.camera}]",
        *of.changes,
        *STARTS[start],
    ]
    config = load_config(HERE / "config.yaml", changes + ([f"init={policy}"] if "fine-tuned" in start else []), RunConfig)
    result = offline(PolicyModule.load(train(config)).robot(), data, progress=False)
    if start == next(iter(STARTS)) and seed == SEEDS[0]:
        (HERE / f"{name}.png").write_bytes(plot(result))
    where = {"data": name, "start": start, "seed": seed, "episodes": len(result.trajectories), "frames": result.frames}
    return [
        where | {"dim": dim, "who": who, "l1": f"{values[k]:.6g}", "range": f"{result.range[k]:.6g}"}
        for who, values in result.errors.items()
        for k, dim in enumerate(result.names)
    ]


def table(rows: list[dict[str, str]]) -> str:
    """Markdown: mean error over dims as a share of each dim's range, first actions and chunks; policies: mean over seeds (lowest to highest)."""
    cells: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        who, _, part = row["who"].partition(", ")
        cells[row["data"], row["start"] if who == "policy" else who, part or "first action"][row["seed"]].append(
            100 * float(row["l1"]) / float(row["range"])
        )
    lines = []
    for data in dict.fromkeys(k[0] for k in cells):
        for who in dict.fromkeys(k[1] for k in cells if k[0] == data):
            shown = []
            for part in ("first action", "chunk"):
                seeds = sorted(float(np.mean(v)) for v in cells[data, who, part].values())
                spread = f" ({seeds[0]:.2f} to {seeds[-1]:.2f})" if seeds[-1] - seeds[0] > 1e-9 else ""
                shown.append(f"{np.mean(seeds):.2f} %{spread}")
            lines.append([data, who, *shown])
    return markdown(["data", "who", "next action", "next 8 actions"], lines)


def tables() -> dict[str, str]:
    """The README's tables, of results.csv."""
    return {"errors": table(read_table(HERE / "results.csv"))}


def main() -> None:
    """All runs, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, default=HERE.parent / "tabletop_seen" / "policy")
    parser.add_argument("--data", choices=list(DATA), help="only this one")
    parser.add_argument("--table", action="store_true", help="only put the table of results.csv into the README")
    arguments = parser.parse_args()
    path = HERE / "results.csv"
    for name in () if arguments.table else [arguments.data] if arguments.data else DATA:
        for seed in SEEDS:
            for start in STARTS:
                if any((r["data"], r["start"], r["seed"]) == (name, start, str(seed)) for r in read_table(path)):
                    continue
                new = run(name, start, seed, arguments.policy)
                add_rows(path, new, Path("runs/custom/results.lock"))  # the other data set may be written beside
    put(HERE / "README.md", "errors", tables()["errors"])


if __name__ == "__main__":
    main()
