"""The ``meta/`` folder of an exported LeRobot 3.0 data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.base import need

DATA_FILE = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_FILE = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_PER_CHUNK = 1000
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    """A parquet file of columns of numbers, or of vectors as fixed-size float32 lists."""
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for key, values in columns.items():
        if isinstance(values[0], np.ndarray):
            flat = pa.array(np.concatenate(values), pa.float32())
            arrays[key] = pa.FixedSizeListArray.from_arrays(flat, len(values[0]))
        else:
            arrays[key] = pa.array(values, pa.float32() if key == "timestamp" else None)
    parquet.write_table(pa.table(arrays), path)


def write_episodes(meta: Path, rows: list[dict[str, Any]]) -> None:
    """The table of the episodes, in one file."""
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    place = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
    rows = [r | place for r in rows]
    (meta / "episodes/chunk-000").mkdir(parents=True)
    parquet.write_table(
        pa.table({k: [r[k] for r in rows] for k in rows[0]}),
        meta / "episodes/chunk-000/file-000.parquet",
    )


def write_tasks(meta: Path, tasks: dict[str, int], what: str = "task") -> None:
    """The table of the instructions, or of the subtasks (``what`` is "subtask").

    LeRobot expects a pandas index of the texts. The metadata below declares it, so that pandas
    itself is not needed.
    """
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    index = _pandas_column(None, "__index_level_0__", "unicode", "object")
    column = f"{what}_index"
    number = _pandas_column(column, column, "int64", "int64")
    about = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [],
        "columns": [number, index],
        "attributes": {},
        "pandas_version": "2.2.0",
    }
    table = pa.table({column: list(tasks.values()), "__index_level_0__": list(tasks)})
    described = table.replace_schema_metadata({b"pandas": json.dumps(about).encode()})
    parquet.write_table(described, meta / f"{what}s.parquet")


def _pandas_column(name: str | None, field: str, kind: str, dtype: str) -> dict[str, Any]:
    return {
        "name": name,
        "field_name": field,
        "pandas_type": kind,
        "numpy_type": dtype,
        "metadata": None,
    }


def feature_statistics(values: np.ndarray, image: bool) -> dict[str, Any]:
    """LeRobot's statistics of one feature from (N, D) values; D = 3 colours for images."""
    shape = (3, 1, 1) if image else (values.shape[1],)
    levels = np.quantile(values, list(_QUANTILES.values()), axis=0)
    rows = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        **dict(zip(_QUANTILES, levels, strict=True)),
    }
    return {k: v.reshape(shape).tolist() for k, v in rows.items()} | {"count": [len(values)]}


def video_feature(height: int, width: int, fps: float) -> dict[str, Any]:
    """A camera's entry in ``info.json``."""
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def dataset_info(
    robot: str,
    fps: float,
    splits: dict[str, int],
    frames: int,
    tasks: int,
    features: dict[str, Any],
) -> dict[str, Any]:
    """The content of ``info.json``; ``splits`` are the episodes of each split, in order."""
    ends = np.cumsum([0, *splits.values()]).tolist()
    ranges = {name: f"{a}:{b}" for name, a, b in zip(splits, ends, ends[1:], strict=False)}
    videos = any(feature["dtype"] == "video" for feature in features.values())
    return {
        "codebase_version": "v3.0",
        "robot_type": robot or "unknown",
        "total_episodes": ends[-1],
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(fps) if fps == int(fps) else fps,
        "splits": ranges,
        "data_path": DATA_FILE,
        "video_path": VIDEO_FILE if videos else None,
        "features": features,
    }
