"""Can one policy command the tabletop and a robot with 26 joints, and does the tabletop stay as good? Writes before.json, after.json, g1.json.

Usage: python experiments/two_robots/run.py [--episodes 100]; needs the shards of experiments/tabletop_seen (README there); what is done is skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vla.config import load_config
from vla.data.manifest import write_json
from vla.data.pack import pack_from
from vla.evaluate import evaluate, summary
from vla.module import PolicyModule
from vla.offline import offline
from vla.report import default_environment
from vla.suites import mcnemar, read_results
from vla.tables import markdown, put
from vla.train import RunConfig, train

HERE = Path(__file__).parent
G1 = HERE.parents[2] / "shared" / "realdata" / "g1_lerobot21"


def closed_loop(policy: Any, episodes: int, out: Path) -> None:
    """The tabletop's skills, the same seeds before and after."""
    if not out.is_file():
        env, skills = default_environment(policy.contract)
        evaluate(policy, "vla/Tabletop-v0", env, episodes, skills, out)


def tables() -> dict[str, str]:
    """The README's tables, of the JSON files."""
    rows, found = [], {when: read_results(HERE / f"{when}.json") for when in ("before", "after")}
    for when, results in found.items():
        for skill, s in summary(results).items():
            rows.append([when, skill, f"{100 * s['success']:.1f} %", f"{100 * s['low']:.1f} to {100 * s['high']:.1f}", str(s["n"])])
    m = mcnemar(found["after"], found["before"])
    paired = f"Of the same {len(found['after'])} episodes {m['only_theirs']} were won only before and {m['only_ours']} only after (McNemar's exact test: p = {m['p']:.2g})."
    shares = json.loads((HERE / "g1.json").read_text())["error_as_share_of_range"]
    arm = [[who, f"{100 * share:.2f} %"] for who, share in shares.items()]
    return {
        "tabletop": markdown(["when", "skill", "success", "95 % interval", "episodes"], rows),
        "paired": paired,
        "g1": markdown(["who", "error, share of range"], arm),
    }


def main() -> None:
    """Evaluate, train on the mixture, evaluate again, and look at G1's held-out episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100, help="of every skill, before and after")
    episodes = parser.parse_args().episodes
    mapping = ["source.mapping.size=64", "source.mapping.rate_hz=5", "shard_size=1", "val_fraction=0.25"]
    pack_from(G1, Path("data/custom/g1"), mapping, skip_missing=True)
    config = load_config(HERE / "config.yaml", (), RunConfig)
    closed_loop(PolicyModule.load(config.init).robot(), episodes, HERE / "before.json")
    both = PolicyModule.load(train(config))
    closed_loop(both.robot("robot"), episodes, HERE / "after.json")
    result = offline(both.robot("g1"), "data/custom/g1")
    shares = {who: float((e / result.range).mean()) for who, e in result.errors.items()}
    write_json(HERE / "g1.json", {"frames": result.frames, "episodes": len(result.trajectories), "error_as_share_of_range": shares})
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
