"""Reading speed and packing memory: our shards against random access to the same episodes as a LeRobot set with pictures in its tables.

Usage: python experiments/throughput/run.py; one core, both in the same run, medians of alternating rounds; writes results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla.data.manifest import write_json
from vla.data.pack import pack
from vla.data.pipeline import BatchStream, WindowConfig, untarred
from vla.data.samples import cut_frame, read_json, read_steps
from vla.data.sources import TabletopSource
from vla.sim.scene import SceneConfig
from vla.tables import markdown, put

HERE, CHUNK = Path(__file__).parent, 8
SYNTHETIC = """
import resource, sys
from pathlib import Path
import numpy as np
from vla.data.pack import pack
from vla.schema import ActionSpace, Episode
from vla.sim.record import encode_jpeg

class Synthetic:
    action_space = ActionSpace(tuple("abcdefg"), ("m",) * 7, (-1.0,) * 7, (1.0,) * 7)
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def describe(self): return {"name": "synthetic", "count": self.count, "size": 32}
    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        frame = encode_jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        actions = rng.uniform(-1, 1, (20, 7)).astype(np.float32)
        return Episode(f"{i:07d}", f"task {i % 50}", {"top": [frame] * 20}, actions, state=actions)

pack(Synthetic(int(sys.argv[1])), Path(sys.argv[2]), 50, 0.05, False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def as_image_tables(shards: Path, manifest: dict, out: Path) -> Path:
    """The same JPEG bytes in one parquet file an episode, as LeRobot's image mode keeps them."""
    out.mkdir(parents=True, exist_ok=True)
    urls = iter([{"url": str(shards / s)} for s in manifest["splits"]["train"]])
    for n, sample in enumerate(untarred(shards, urls)):
        meta, steps = read_json(sample), read_steps(sample)
        frames = [{"bytes": cut_frame(sample, meta, "top", t), "path": None} for t in range(len(steps["actions"]))]
        pq.write_table(
            pa.table({"observation.images.top": frames, "action": steps["actions"].tolist()}), out / f"episode_{n:06d}.parquet"
        )
    return out


def random_access(files: list[Path], count: int) -> float:
    """Samples a second: one picture and the next ``CHUNK`` actions from a random row of a random episode, as a map-style data set reads."""
    lengths = {f: pq.read_metadata(f).num_rows for f in files}
    rng, start = random.Random(0), time.perf_counter()
    for _ in range(count):
        file = rng.choice(files)
        row = rng.randrange(lengths[file])
        table = pq.read_table(file)
        data = table.column("observation.images.top")[row].as_py()["bytes"]
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.array(table.column("action").slice(row, CHUNK).to_pylist(), np.float32)
    return count / (time.perf_counter() - start)


def from_shards(shards: Path, count: int) -> float:
    """Samples a second of the training stream, shuffled and decoded."""
    window = WindowConfig(horizon=CHUNK, segments=1)
    stream = iter(BatchStream({"d": str(shards)}, {"d": 1.0}, window, 16, True, shuffle=2000))
    next(stream)
    start = time.perf_counter()
    for _ in range(count // 16):
        next(stream)
    return count // 16 * 16 / (time.perf_counter() - start)


def memory_mb(episodes: int, folder: Path) -> float:
    """Peak memory of packing so many synthetic episodes, in a process of its own."""
    out = subprocess.run([sys.executable, "-c", SYNTHETIC, str(episodes), str(folder)], check=True, capture_output=True, text=True)
    return int(out.stdout.split()[-1]) / 1024


def tables() -> dict[str, str]:
    """The README's table, of results.json."""
    r = json.loads((HERE / "results.json").read_text())
    rows = [
        ["samples a second, shards", f"{r['samples_a_second_shards']:,.0f}"],
        ["samples a second, random access to parquet", f"{r['samples_a_second_random_access']:,.0f}"],
        ["ratio", f"{r['ratio']:.1f}"],
        ["frames a second packed, rendering and the expert included", f"{r['packing_frames_a_second_with_rendering']:,.0f}"],
        ["peak memory, 100 episodes packed", f"{r['peak_mb_100_episodes']:.1f} MB"],
        ["peak memory, 10,000 episodes packed", f"{r['peak_mb_10000_episodes']:.1f} MB ({100 * (r['peak_ratio'] - 1):+.1f} %)"],
    ]
    return {"speed": markdown(["what", "median of the rounds"], rows)}


def main() -> None:
    """Measure and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    root = Path("data/throughput")
    start = time.perf_counter()
    source = TabletopSource(SceneConfig(skills=("pick",), cards=(0, 0), concepts=12), arguments.episodes, size=96)
    manifest = pack(source, root / "shards", 50)
    packing = manifest["steps"] / (time.perf_counter() - start)
    files = sorted(as_image_tables(root / "shards", manifest, root / "tables").glob("*.parquet"))
    rounds = [(from_shards(root / "shards", 3200), random_access(files, 800)) for _ in range(arguments.rounds)]
    ours, theirs = (statistics.median(r[k] for r in rounds) for k in (0, 1))
    small, large = memory_mb(100, root / "m100"), memory_mb(10_000, root / "m10000")
    results = {
        "samples_a_second_shards": ours, "samples_a_second_random_access": theirs, "ratio": ours / theirs, "rounds": rounds,
        "packing_frames_a_second_with_rendering": packing, "peak_mb_100_episodes": small, "peak_mb_10000_episodes": large, "peak_ratio": large / small,
    }  # fmt: skip
    write_json(HERE / "results.json", results)
    put(HERE / "README.md", "speed", tables()["speed"])


if __name__ == "__main__":
    main()
