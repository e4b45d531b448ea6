"""What is compared: our training stream, and random access to the same episodes as LeRobot keeps them in image mode."""

from __future__ import annotations

import io
import random
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla.data.pictures import decode_image
from vla.data.pipeline import BatchStream, WindowConfig
from vla.data.samples import cut_frame, read_json, read_steps
from vla.data.shards import untarred

CHUNK = 8  # actions of a sample
Keep = Literal["tables", "files", "nothing"]


def as_lerobot(shards: Path, manifest: dict[str, Any], out: Path, episodes_a_file: int, camera: str = "top") -> list[Path]:
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
            Image.fromarray(decode_image(cut_frame(sample, meta, camera, t), "")).save(buffer, "PNG")
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


def random_access(files: list[Path], count: int, keep: Keep, size: int = 0) -> float:
    """Samples a second: one picture (shrunk to ``size`` px, 0: as it is) and the next ``CHUNK`` actions of a random row of a random episode, as a map-style
    data set reads. keep: between samples, every episode's table, the files opened, or nothing."""
    opened = [pq.ParquetFile(f) for f in files]
    groups = [(n, g, f.metadata.row_group(g).num_rows) for n, f in enumerate(opened) for g in range(f.num_row_groups)]
    columns = ["observation.images.top", "action"]
    tables = [opened[n].read_row_group(g, columns) for n, g, _ in groups] if keep == "tables" else []
    rng, start = random.Random(0), time.perf_counter()
    for _ in range(count):
        at = rng.randrange(len(groups))
        number, group, length = groups[at]
        row = rng.randrange(length)
        if tables:
            table = tables[at]
        else:
            file = opened[number] if keep == "files" else pq.ParquetFile(files[number])
            table = file.read_row_group(group, columns, use_threads=False)
        picture = Image.open(io.BytesIO(table.column(columns[0])[row].as_py()["bytes"])).convert("RGB")
        np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR) if size else picture)
        np.array(table.column("action").slice(row, CHUNK).to_pylist(), np.float32)
    return count / (time.perf_counter() - start)


def from_shards(shards: Path, count: int, camera: str = "top") -> float:
    """Samples a second of the training stream, shuffled, decoded and batched."""
    window = WindowConfig(cameras=(camera,), horizon=CHUNK, segments=1)
    stream = iter(BatchStream({"d": str(shards)}, {"d": 1.0}, window, 16, True, shuffle=2000))
    for _ in range(count // 160):
        next(stream)
    start = time.perf_counter()
    for _ in range(count // 16):
        next(stream)
    return count // 16 * 16 / (time.perf_counter() - start)


def kb_a_frame(files: list[Path], frames: int) -> float:
    """Disk of a frame in KiB, its share of everything else included. frames: how many are in these files."""
    return sum(f.stat().st_size for f in files) / frames / 1024


def frames_in(files: list[Path]) -> int:
    """Frames in parquet files: those of the training episodes alone, where shards hold the others, too."""
    return sum(pq.ParquetFile(f).metadata.num_rows for f in files)
