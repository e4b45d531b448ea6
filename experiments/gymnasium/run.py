"""BabyAI and gym-aloha through ``vla record``, ``vla train`` and ``vla eval``.

Needs `.[minigrid]` and `gym-aloha`. Writes results.csv and the README's table; finished steps are
skipped.
Usage: python experiments/gymnasium/run.py [--only babyai aloha]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vla.evaluation.results import read_results
from vla.evaluation.statistics import percentages, summary
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ALOHA = [
    "id=gym_aloha:gym_aloha/AlohaTransferCube-v0",
    "instruction=transfer the cube",
    "options.obs_type=pixels_agent_pos",
    "wrappers=[aloha:TopCamera]",
    "clip_actions=false",
    "expert=aloha:Expert",
]
# Command that records, configuration of training, benchmark with its options, episodes a task.
PARTS: dict[str, tuple[list[str], Path, list[str], int]] = {
    "babyai": (
        ["pack", str(ROOT / "configs" / "pack" / "babyai.yaml"), "runs/babyai/data"],
        ROOT / "configs" / "babyai.yaml",
        ["babyai", "levels=[GoToObj,GoToLocal]"],
        100,
    ),
    "aloha": (
        ["record", "gym", "runs/aloha/data", "--episodes", "50", *ALOHA],
        HERE / "aloha.yaml",
        ["gym", *ALOHA],
        50,
    ),
}

# Policy -> changes of the configuration.
TRAINED: dict[str, dict[str, list[str]]] = {
    "babyai": {"trained": []},
    "aloha": {
        "trained": [],
        "trained, chunks of 30": ["data.window.horizon=30", "execution.horizon=30"],
    },
}


def vla(*command: str) -> None:
    """Run a command of vla; the experts are found in this folder."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-m", "vla", *command], check=False, env=environment)
    if done.returncode:
        sys.exit(done.returncode)  # the command has printed why


def evaluated(part: str, label: str, who: str, out: Path) -> list[dict[str, Any]]:
    """Lines of results.csv, one per task."""
    name, *options = PARTS[part][2]
    count = ["--episodes", str(PARTS[part][3]), "--workers", "1"]
    if not (out / "results.json").is_file():
        vla("eval", who, "--benchmark", name, *options, *count, "--out", str(out))
    found = summary(read_results(out / "results.json"))
    found.pop("all", None)
    return [
        {
            "task": task.split("/")[-1],
            "policy": label,
            "episodes": f"{row['n']:.0f}",
            **percentages(row),
            "steps": f"{row['steps']:.0f}",
        }
        for task, row in found.items()
    ]


def tables() -> dict[str, str]:
    """The README's table, from results.csv."""
    titles = ["task", "policy", "episodes", "success, %", "95 % interval"]
    lines = [
        [*list(r.values())[:4], f"{r['low']} to {r['high']}"]
        for r in read_table(HERE / "results.csv")
    ]
    return {"table": markdown(titles, lines)}


def main() -> None:
    """Record, train, evaluate; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    path = HERE / "results.csv"
    present = read_table(path) if path.is_file() else []
    rows: dict[Any, Any] = {(r["task"], r["policy"]): r for r in present}
    for part in options.only:
        recording, config = PARTS[part][:2]
        vla(*recording)
        policies = {"expert": "expert"}
        for number, (label, changes) in enumerate(TRAINED[part].items()):
            folder = f"runs/{part}/policy{number or ''}"
            vla("train", str(config), *changes, f"output_dir={folder}")
            policies[label] = f"{folder}/policy"
        for label, who in policies.items():
            out = Path("runs") / part / f"eval_{label.replace(', ', '_').replace(' ', '_')}"
            new = evaluated(part, label, who, out)
            rows |= {(r["task"], r["policy"]): r for r in new}
            write_table(path, [*rows.values()])
    put(HERE / "README.md", "table", tables()["table"])


if __name__ == "__main__":
    main()
