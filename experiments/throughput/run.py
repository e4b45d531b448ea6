"""Reading speed and packing memory: our shards against random access to the same episodes as a LeRobot 3.0 set with pictures in its tables.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla.data.manifest import write_json
from vla.data.pack import pack
from vla.data.pictures import Encoding, decode_image, encode_image
from vla.data.pipeline import BatchStream, WindowConfig, untarred
from vla.data.samples import cut_frame, read_json, read_steps
from vla.data.sources import TabletopSource
from vla.schema import ActionSpace, Episode
from vla.sim.scene import SceneConfig
from vla.tables import markdown, put

HERE, CHUNK, FRAMES = Path(__file__).parent, 8, 6000
OURS = {"shards": "JPEG", "shards_ppm": "PPM, lossless"}
THEIRS = ("lerobot3_open", "lerobot2_opened")
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
            frames = [encode_image(decode_image(f, "").transpose(1, 2, 0), "ppm") for f in frames]
        return Episode(f"{index:07d}", "tidy the table", {"top": frames}, np.array(actions[: self.length]))


def as_lerobot(shards: Path, manifest: dict, out: Path, episodes_a_file: int) -> list[Path]:
    """The same episodes as lerobot writes image mode: PNG in ``struct{bytes, path}``, one episode (2.1) or many (3.0) a parquet file, a row group each."""
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    writer: pq.ParquetWriter | None = None
    urls = iter([{"url": str(shards / s)} for s in manifest["splits"]["train"]])
    for n, sample in enumerate(untarred(shards, urls)):
        meta, steps = read_json(sample), read_steps(sample)
        frames = []
        for t in range(len(steps["actions"])):
            buffer = io.BytesIO()
            Image.fromarray(decode_image(cut_frame(sample, meta, "top", t), "").transpose(1, 2, 0)).save(buffer, "PNG")
            frames.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"observation.images.top": frames, "action": steps["actions"].tolist()})
        if n % episodes_a_file == 0:
            if writer:
                writer.close()
            files.append(out / f"file-{len(files):03d}.parquet")
            writer = pq.ParquetWriter(files[-1], table.schema)
        assert writer is not None
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return files


def random_access(files: list[Path], count: int, keep_open: bool) -> float:
    """Samples a second: one picture and the next ``CHUNK`` actions of a random row of a random episode, as a map-style data set reads."""
    opened = [pq.ParquetFile(f) for f in files]
    groups = [(n, g, f.metadata.row_group(g).num_rows) for n, f in enumerate(opened) for g in range(f.num_row_groups)]
    rng, start = random.Random(0), time.perf_counter()
    for _ in range(count):
        number, group, length = groups[rng.randrange(len(groups))]
        row = rng.randrange(length)
        file = opened[number] if keep_open else pq.ParquetFile(files[number])
        table = file.read_row_group(group, ["observation.images.top", "action"], use_threads=False)
        data = table.column("observation.images.top")[row].as_py()["bytes"]
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.array(table.column("action").slice(row, CHUNK).to_pylist(), np.float32)
    return count / (time.perf_counter() - start)


def from_shards(shards: Path, count: int) -> float:
    """Samples a second of the training stream, shuffled, decoded and batched."""
    window = WindowConfig(horizon=CHUNK, segments=1)
    stream = iter(BatchStream({"d": str(shards)}, {"d": 1.0}, window, 16, True, shuffle=2000))
    for _ in range(40):
        next(stream)
    start = time.perf_counter()
    for _ in range(count // 16):
        next(stream)
    return count // 16 * 16 / (time.perf_counter() - start)


def memory_mb(episodes: int, folder: Path) -> float:
    """Peak memory of packing so many synthetic episodes, in a process of its own."""
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
        {"shards": from_shards(shards, 6400), "shards_ppm": from_shards(plain, 6400)}
        | {"lerobot3_open": random_access(many, 400, True), "lerobot2_opened": random_access(single, 400, False)}
        for _ in range(rounds)
    ]
    ratios = {f"ratio_{o}_{k}": statistics.median(r[o] / r[k] for r in found) for o in OURS for k in THEIRS}
    sizes = {"shards": kb_a_frame([shards], "shard-*.tar"), "shards_ppm": kb_a_frame([plain], "shard-*.tar")}
    sizes["lerobot"] = kb_a_frame([many[0].parent], "*.parquet")
    return (
        {"frames": length} | {k: statistics.median(r[k] for r in found) for k in found[0]} | ratios | {"kb": sizes, "rounds": found}
    )


def kb_a_frame(folders: list[Path], pattern: str) -> float:
    """Disk of a frame, its share of everything else included."""
    return sum(f.stat().st_size for folder in folders for f in folder.glob(pattern)) / FRAMES / 1024


def tables() -> dict[str, str]:
    """The README's tables, of results.json."""
    r = json.loads((HERE / "results.json").read_text())
    lines = [
        [
            str(s["frames"]),
            what,
            f"{s['kb'][o]:.1f}",
            f"{s[o]:,.0f}",
            *(f"{s[k]:,.0f} (1 : {s[f'ratio_{o}_{k}']:.1f})" for k in THEIRS),
        ]
        for s in r["speeds"]
        for o, what in OURS.items()
    ]
    lerobot = statistics.median(s["kb"]["lerobot"] for s in r["speeds"])
    rows = [
        ["frames a second packed, rendering and the expert included", f"{r['packing_frames_a_second_with_rendering']:,.0f}"],
        ["peak memory, 100 episodes packed", f"{r['peak_mb_100_episodes']:.1f} MB"],
        ["peak memory, 10,000 episodes packed", f"{r['peak_mb_10000_episodes']:.1f} MB ({100 * (r['peak_ratio'] - 1):+.1f} %)"],
    ]
    return {
        "speed": markdown(
            [
                "frames an episode",
                "our pictures",
                "KB a frame",
                "our samples/s",
                f"LeRobot 3.0 (PNG, {lerobot:.1f} KB), files kept open",
                "LeRobot 2.1, file opened each time",
            ],
            lines,
        ),
        "packing": markdown(["packing", "measured"], rows),
    }


def main() -> None:
    """Measure and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure only the memory of packing again")
    parser.add_argument("--lengths", type=int, nargs="+", default=[12, 50, 125, 300])
    arguments = parser.parse_args()
    root, path = Path("data/throughput"), HERE / "results.json"
    if arguments.memory:
        results = json.loads(path.read_text())
    else:
        start = time.perf_counter()
        packed = pack(TabletopSource(SceneConfig(skills=("pick",), cards=(0, 0), concepts=12), 300, size=96), root / "packing", 50)
        results = {"packing_frames_a_second_with_rendering": packed["steps"] / (time.perf_counter() - start)}
        results["speeds"] = [speed(n, arguments.rounds, root) for n in arguments.lengths]
    small, large = memory_mb(100, root / "m100"), memory_mb(10_000, root / "m10000")
    write_json(path, results | {"peak_mb_100_episodes": small, "peak_mb_10000_episodes": large, "peak_ratio": large / small})
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
