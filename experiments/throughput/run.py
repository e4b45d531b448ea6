"""Reading speed and packing memory: our shards against random access to the same episodes as a LeRobot set with pictures in its tables.

Usage: python experiments/throughput/run.py; one core, both in the same run, medians of alternating rounds; writes results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
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

from vla.data.manifest import write_json
from vla.data.pack import pack
from vla.data.pictures import Encoding, decode_image, encode_image
from vla.data.sources import TabletopSource
from vla.schema import ActionSpace, Episode
from vla.sim.scene import SceneConfig
from vla.tables import markdown, put

HERE, FRAMES = Path(__file__).parent, 6000
SYNTHETIC = """
import sys
from pathlib import Path
import numpy as np
from vla.data.pack import pack
from vla.memory import peak_memory_mb
from vla.schema import ActionSpace, Episode
from vla.data.pictures import encode_image

class Synthetic:
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
class Joined:
    """Episodes of ``length`` frames at 5 Hz: tabletop recordings of 96 px, one after the other."""

    length: int
    count: int
    pictures: Encoding = "jpeg"

    @property
    def _parts(self) -> TabletopSource:
        return TabletopSource(SceneConfig(skills=("pick",), cards=(0, 0), concepts=12), 1_000_000, size=96, alternatives=0)

    @property
    def action_space(self) -> ActionSpace:
        """The tabletop's."""
        return self._parts.action_space

    def __len__(self) -> int:
        return self.count

    def describe(self) -> dict[str, Any]:
        """What identifies the data."""
        return {"name": "joined", "length": self.length, "count": self.count, "size": 96, "pictures": self.pictures}

    def __getitem__(self, index: int) -> Episode:
        parts, frames, actions, number = self._parts, [], [], index * 100
        while len(frames) < self.length:
            part = parts[number]
            frames += part.images["top"]
            actions += list(part.actions)
            number += 1
        frames = frames[: self.length]
        if self.pictures == "ppm":  # the very pixels
            frames = [encode_image(decode_image(f, ""), "ppm") for f in frames]
        return Episode(f"{index:07d}", "tidy the table", {"top": frames}, np.array(actions[: self.length]))


def memory_mb(episodes: int, folder: Path) -> float:
    """Peak memory of packing so many synthetic episodes, in a process of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    out = subprocess.run([sys.executable, "-c", SYNTHETIC, str(episodes), str(folder)], check=True, capture_output=True, text=True)
    return float(out.stdout.split()[-1])


def speed(length: int, rounds: int, root: Path) -> dict[str, Any]:
    """All readers on episodes of one length, in turn; ratios are medians over rounds."""
    shards, plain = (root / f"shards_{length}_{kind}" for kind in ("jpeg", "ppm"))
    manifest = pack(Joined(length, FRAMES // length), shards, max(1, 600 // length))
    pack(Joined(length, FRAMES // length, "ppm"), plain, max(1, 600 // length))
    many = as_lerobot(shards, manifest, root / f"lerobot3_{length}", 50)
    single = as_lerobot(shards, manifest, root / f"lerobot2_{length}", 1)
    found = [
        {
            "shards": from_shards(shards, 6400), "shards_ppm": from_shards(plain, 6400), "lerobot_tables": random_access(many, 2000, "tables"),
            "lerobot3_open": random_access(many, 400, "files"), "lerobot2_opened": random_access(single, 400, "nothing"),
        }
        for _ in range(rounds)
    ]  # fmt: skip
    frames = manifest["steps"]
    sizes = {
        "shards": kb_a_frame([*shards.glob("shard-*.tar")], frames), "shards_ppm": kb_a_frame([*plain.glob("shard-*.tar")], frames),
        "lerobot": kb_a_frame(many, frames_in(many)),
    }  # fmt: skip
    return {"frames": length} | summary(found) | {"kb": sizes, "rounds": found}


def tables() -> dict[str, str]:
    """The README's tables, of results.json."""
    r = json.loads((HERE / "results.json").read_text())
    lines = [
        [str(s["frames"]), what, f"{s['kb'][o]:.1f}", f"{s[o]:,.0f}", *against(s, o)]
        for s in r["speeds"]
        for o, what in OURS.items()
    ]
    lerobot = statistics.median(s["kb"]["lerobot"] for s in r["speeds"])
    head = ["frames an episode", "our pictures", "KB a frame", "our samples/s"]
    names = list(THEIRS.values())
    rows = [
        ["frames a second packed, rendering and the expert included", f"{r['packing_frames_a_second_with_rendering']:,.0f}"],
        ["peak memory, 100 episodes packed", f"{r['peak_mb_100_episodes']:.1f} MB"],
        ["peak memory, 10,000 episodes packed", f"{r['peak_mb_10000_episodes']:.1f} MB ({100 * (r['peak_ratio'] - 1):+.1f} %)"],
    ]
    return {
        "speed": markdown([*head, f"{names[0]} (PNG, {lerobot:.1f} KB)", *names[1:]], lines),
        "recorded": recorded_table(r["recorded"]),
        "packing": markdown(["packing", "measured"], rows),
    }


def main() -> None:
    """Measure and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=[12, 50, 125, 300])
    parser.add_argument("--only", choices=("speed", "recorded", "memory"), nargs="+", default=["speed", "recorded", "memory"])
    arguments = parser.parse_args()
    root, path = Path("data/throughput"), HERE / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    if "speed" in arguments.only:
        shutil.rmtree(root / "packing", ignore_errors=True)  # what is there already would be packed in no time
        start = time.perf_counter()
        packed = pack(TabletopSource(SceneConfig(skills=("pick",), cards=(0, 0), concepts=12), 300, size=96), root / "packing", 50)
        results["packing_frames_a_second_with_rendering"] = packed["steps"] / (time.perf_counter() - start)
        results["speeds"] = [speed(n, arguments.rounds, root) for n in arguments.lengths]
    if "recorded" in arguments.only:
        results["recorded"] = recorded(arguments.rounds, root)
    if "memory" in arguments.only:
        small, large = memory_mb(100, root / "m100"), memory_mb(10_000, root / "m10000")
        results |= {"peak_mb_100_episodes": small, "peak_mb_10000_episodes": large, "peak_ratio": large / small}
    write_json(path, results)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
