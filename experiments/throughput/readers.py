"""The compared readers: the training stream, and random access to LeRobot image data."""

from __future__ import annotations

import io
import random
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla.data.config import DataConfig, WindowConfig
from vla.data.images import decode_image
from vla.data.packed import iter_samples
from vla.data.pipeline import BatchStream
from vla.data.samples import read_frame, read_json, read_steps

CHUNK = 8  # actions of a sample
Keep = Literal["tables", "files", "nothing"]


def as_lerobot(shards: Path, out: Path, episodes_a_file: int, camera: str = "top") -> list[Path]:
    """Write the episodes in LeRobot's image mode; returns the parquet files.

    PNG in ``struct{bytes, path}``, one (2.1) or many (3.0) episodes a file, a row group each.
    """
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    writer: pq.ParquetWriter | None = None
    for n, sample in enumerate(iter_samples(shards, "train")):
        meta, steps = read_json(sample), read_steps(sample)
        frames = []
        for t in range(len(steps["actions"])):
            buffer = io.BytesIO()
            Image.fromarray(decode_image(read_frame(sample, meta, camera, t), "")).save(
                buffer, "PNG"
            )
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
    """Samples a second of a map-style data set: a random frame and the next ``CHUNK`` actions.

    ``size``: images are resized to this side in px, 0: not resized. ``keep``: what stays in memory
    between samples: every episode's table, the open files, or nothing.
    """
    opened = [pq.ParquetFile(f) for f in files]
    groups = [
        (n, g, f.metadata.row_group(g).num_rows)
        for n, f in enumerate(opened)
        for g in range(f.num_row_groups)
    ]
    columns = ["observation.images.top", "action"]
    tables = (
        [opened[n].read_row_group(g, columns) for n, g, _ in groups] if keep == "tables" else []
    )
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
        image = Image.open(io.BytesIO(table.column(columns[0])[row].as_py()["bytes"])).convert(
            "RGB"
        )
        np.asarray(image.resize((size, size), Image.Resampling.BILINEAR) if size else image)
        np.array(table.column("action").slice(row, CHUNK).to_pylist(), np.float32)
    return count / (time.perf_counter() - start)


def from_shards(shards: Path, count: int, camera: str = "top") -> float:
    """Samples a second of the training stream, shuffled, decoded and batched."""
    window = WindowConfig(cameras=(camera,), horizon=CHUNK, max_texts_per_image=1)
    config = DataConfig({"d": str(shards)}, {"d": 1.0}, window, shuffle=2000)
    stream = iter(BatchStream(config, 16, True))
    for _ in range(count // 160):
        next(stream)
    start = time.perf_counter()
    for _ in range(count // 16):
        next(stream)
    return count // 16 * 16 / (time.perf_counter() - start)


def kb_a_frame(files: list[Path], frames: int) -> float:
    """Disk space of a frame in KiB; ``frames``: number of frames in these files."""
    return sum(f.stat().st_size for f in files) / frames / 1024


def frames_in(files: list[Path]) -> int:
    """Number of frames in parquet files, which contain training episodes only."""
    return sum(pq.ParquetFile(f).metadata.num_rows for f in files)
