"""Reading speed of shards and of LeRobot data with the same episodes; peak memory of packing.

One core; the readers take turns; medians of the rounds go to results.json.
Usage: python experiments/throughput/run.py [--only speed|recorded|memory]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from readers import as_lerobot, frames_in, from_shards, kb_a_frame, random_access
from recorded import OURS, THEIRS, against, recorded, recorded_table, summary

from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.sources import TabletopSource
from vla.data.images import Encoding, decode_image, encode_image
from vla.data.pack import pack
from vla.data.source import Source
from vla.types import ActionSpace, Episode
from vla.utils.csv_tables import markdown, put
from vla.utils.io import write_json

HERE, FRAMES = Path(__file__).parent, 6000
SYNTHETIC = """
import sys
from pathlib import Path
import numpy as np
from vla.data.pack import pack
from vla.data.source import Source
from vla.utils.memory import peak_memory_mb
from vla.types import ActionSpace, Episode
from vla.data.images import encode_image

class Synthetic(Source):
    image_size = (32, 32)
    action_space = ActionSpace(tuple("abcdefg"), ("m",) * 7, (-1.0,) * 7, (1.0,) * 7)
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def describe(self): return {"name": "synthetic", "count": self.count, "size": 32}
    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        frame = encode_image(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        actions = rng.uniform(-1, 1, (20, 7)).astype(np.float32)
        return Episode(f"{i:07d}", f"task {i % 50}", {"top": [frame] * 20}, actions, state=actions)

pack(Synthetic(int(sys.argv[1])), Path(sys.argv[2]), 50, 0.05, False)
print(peak_memory_mb())
"""


@dataclass(frozen=True)
class Joined(Source):
    """Episodes of ``length`` frames at 5 Hz: concatenated tabletop recordings of 96 px."""

    length: int
    count: int
    image_format: Encoding = "jpeg"

    @property
    def _parts(self) -> TabletopSource:
        return TabletopSource(
            SceneConfig(skills=("pick",), cards=(0, 0), concepts=12),
            1_000_000,
            size=96,
            alternatives=0,
        )

    @property
    def action_space(self) -> ActionSpace:
        """The action space of the recordings."""
        return self._parts.action_space

    def __len__(self) -> int:
        return self.count

    def describe(self) -> dict[str, Any]:
        """Configuration that identifies the data."""
        return {
            "name": "joined",
            "length": self.length,
            "count": self.count,
            "size": 96,
            "image_format": self.image_format,
        }

    def __getitem__(self, index: int) -> Episode:
        parts, frames, actions, number = self._parts, [], [], index * 100
        while len(frames) < self.length:
            part = parts[number]
            frames += part.images["top"]
            actions += list(part.actions)
            number += 1
        frames = frames[: self.length]
        if self.image_format == "ppm":  # without a second lossy encoding
            frames = [encode_image(decode_image(f, ""), "ppm") for f in frames]
        return Episode(
            f"{index:07d}", "tidy the table", {"top": frames}, np.array(actions[: self.length])
        )


def memory_mb(episodes: int, folder: Path) -> float:
    """Peak memory of packing synthetic episodes, measured in a process of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    out = subprocess.run(
        [sys.executable, "-c", SYNTHETIC, str(episodes), str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(out.stdout.split()[-1])


def speed(length: int, rounds: int, root: Path) -> dict[str, Any]:
    """Samples a second of all readers on episodes of one length, and median ratios."""
    shards, plain = (root / f"shards_{length}_{kind}" for kind in ("jpeg", "ppm"))
    manifest = pack(Joined(length, FRAMES // length), shards, max(1, 600 // length))
    pack(Joined(length, FRAMES // length, "ppm"), plain, max(1, 600 // length))
    many = as_lerobot(shards, root / f"lerobot3_{length}", 50)
    single = as_lerobot(shards, root / f"lerobot2_{length}", 1)
    found = [
        {
            "shards": from_shards(shards, 6400),
            "shards_ppm": from_shards(plain, 6400),
            "lerobot_tables": random_access(many, 2000, "tables"),
            "lerobot3_open": random_access(many, 400, "files"),
            "lerobot2_opened": random_access(single, 400, "nothing"),
        }
        for _ in range(rounds)
    ]
    frames = manifest.steps
    sizes = {
        "shards": kb_a_frame([*shards.glob("shard-*.tar")], frames),
        "shards_ppm": kb_a_frame([*plain.glob("shard-*.tar")], frames),
        "lerobot": kb_a_frame(many, frames_in(many)),
    }
    return {"frames": length} | summary(found) | {"kb": sizes, "rounds": found}


def tables() -> dict[str, str]:
    """Tables of the README by marker, from ``results.json``."""
    r = json.loads((HERE / "results.json").read_text())
    lines = [
        [str(s["frames"]), what, f"{s['kb'][o]:.1f}", f"{s[o]:,.0f}", *against(s, o)]
        for s in (r["speeds"][0], r["speeds"][-1])  # the shortest and the longest episodes
        for o, what in OURS.items()
    ]
    head = ["frames an episode", "format", "KB a frame", "samples a second"]
    names = list(THEIRS.values())
    rows = [
        [
            "frames a second packed, with rendering",
            f"{r['packing_frames_a_second_with_rendering']:,.0f}",
        ],
        ["peak memory of 100 episodes, MB", f"{r['peak_mb_100_episodes']:.1f}"],
        [
            "peak memory of 10,000 episodes, MB",
            f"{r['peak_mb_10000_episodes']:.1f}",
        ],
    ]
    return {
        "speed": markdown([*head, *names], lines),
        "recorded": recorded_table(r["recorded"]),
        "packing": markdown(["packing", "measured"], rows),
    }


def main() -> None:
    """Measure, write results.json and the README's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=[12, 50, 125, 300])
    parser.add_argument(
        "--only",
        choices=("speed", "recorded", "memory"),
        nargs="+",
        default=["speed", "recorded", "memory"],
    )
    arguments = parser.parse_args()
    root, path = Path("data/throughput"), HERE / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    if "speed" in arguments.only:
        shutil.rmtree(root / "packing", ignore_errors=True)  # packing skips complete shards
        start = time.perf_counter()
        packed = pack(
            TabletopSource(SceneConfig(skills=("pick",), cards=(0, 0), concepts=12), 300, size=96),
            root / "packing",
            50,
        )
        results["packing_frames_a_second_with_rendering"] = packed.steps / (
            time.perf_counter() - start
        )
        results["speeds"] = [speed(n, arguments.rounds, root) for n in arguments.lengths]
    if "recorded" in arguments.only:
        results["recorded"] = recorded(arguments.rounds, root)
    if "memory" in arguments.only:
        small, large = memory_mb(100, root / "m100"), memory_mb(10_000, root / "m10000")
        results |= {
            "peak_mb_100_episodes": small,
            "peak_mb_10000_episodes": large,
            "peak_ratio": large / small,
        }
    write_json(path, results)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
