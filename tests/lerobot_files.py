"""Small LeRobot data sets (2.0, 2.1 and 3.0), written with pyarrow and av."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from robot_files import LENGTHS, NAMES, TASKS, action, image_of, png


def write_video(path: Path, images: list[np.ndarray], fps: int = 10) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = (
            images[0].shape[1],
            images[0].shape[0],
            "yuv420p",
            4_000_000,
        )
        for image in images:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _table(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _columns(episode: int, length: int, first: int, image_mode: bool) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "observation.state": [[*action(episode, t)[:2], 0.0] for t in range(length)],
        "action": [action(episode, t) for t in range(length)],
        "timestamp": [np.float32(t / 10) for t in range(length)],
        "frame_index": list(range(length)),
        "episode_index": [episode] * length,
        "index": list(range(first, first + length)),
        "task_index": [episode % 2] * length,
    }
    if image_mode:
        for c, name in enumerate(("top", "wrist")):
            columns[f"observation.images.{name}"] = [
                {"bytes": png(image_of(episode, t, c)), "path": None} for t in range(length)
            ]
    return columns


def write_lerobot2(root: Path, version: str = "v2.1", lengths: tuple[int, ...] = LENGTHS) -> Path:
    """LeRobot 2 in video mode, two cameras."""
    info = {
        "codebase_version": version,
        "robot_type": "arm",
        "fps": 10,
        "chunks_size": 2,
        "total_episodes": len(lengths),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": _features("video"),
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text(
        "".join(json.dumps({"task_index": n, "task": t}) + "\n" for n, t in enumerate(TASKS))
    )
    rows = [
        {"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in enumerate(lengths)
    ]
    (root / "meta/episodes.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in reversed(rows))
    )  # unsorted on purpose
    first = 0
    for e, n in enumerate(lengths):
        place = {"episode_index": e, "episode_chunk": e // 2}
        _table(root / info["data_path"].format(**place), _columns(e, n, first, False))
        for c, name in enumerate(("top", "wrist")):
            file = root / info["video_path"].format(video_key=f"observation.images.{name}", **place)
            write_video(file, [image_of(e, t, c) for t in range(n)])
        first += n
    return root


def _features(kind: str) -> dict[str, Any]:
    images = {
        f"observation.images.{c}": {
            "dtype": kind,
            "shape": [32, 32, 3],
            "names": ["height", "width", "channels"],
        }
        for c in ("top", "wrist")
    }
    numbers = {
        k: {"dtype": "float32", "shape": [3], "names": {"motors": NAMES}}
        for k in ("observation.state", "action")
    }
    books = {
        k: {"dtype": "int64", "shape": [1], "names": None}
        for k in ("frame_index", "episode_index", "index", "task_index")
    }
    return (
        images | numbers | books | {"timestamp": {"dtype": "float32", "shape": [1], "names": None}}
    )


def write_lerobot3(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """LeRobot 3 in video mode, all rows in one table.

    The top camera has one video, the wrist camera one video per episode.
    """
    info = {
        "codebase_version": "v3.0",
        "robot_type": "arm",
        "fps": 10,
        "total_episodes": len(lengths),
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": _features("video"),
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    _table(root / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": list(TASKS)})
    firsts = [sum(lengths[:e]) for e in range(len(lengths))]
    merged: dict[str, list[Any]] = {}
    rows = []
    for e, n in enumerate(lengths):
        for key, values in _columns(e, n, firsts[e], False).items():
            merged.setdefault(key, []).extend(values)
        row: dict[str, Any] = {
            "episode_index": e,
            "tasks": [TASKS[e % 2]],
            "length": n,
            "data/chunk_index": 0,
            "data/file_index": 0,
        }
        for name, file, start in (("top", 0, firsts[e] / 10), ("wrist", e, 0.0)):
            key = f"videos/observation.images.{name}"
            row |= {
                f"{key}/chunk_index": 0,
                f"{key}/file_index": file,
                f"{key}/from_timestamp": start,
                f"{key}/to_timestamp": start + n / 10,
            }
        rows.append(row)
        write_video(
            root / f"videos/observation.images.wrist/chunk-000/file-{e:03d}.mp4",
            [image_of(e, t, 1) for t in range(n)],
        )
    write_video(
        root / "videos/observation.images.top/chunk-000/file-000.mp4",
        [image_of(e, t, 0) for e, n in enumerate(lengths) for t in range(n)],
    )
    _table(root / "data/chunk-000/file-000.parquet", merged)
    _table(
        root / "meta/episodes/chunk-000/file-000.parquet",
        {k: [r[k] for r in rows] for k in rows[0]},
    )
    return root


def edit_info(root: Path, **changes: Any) -> None:
    """Replace keys of ``meta/info.json``; the value ``...`` removes a key."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in info.items() if v is not ...}))


def edit_feature(root: Path, key: str, feature: dict[str, Any]) -> None:
    """Add or change a feature of ``meta/info.json``; a value ``...`` removes a key of it."""
    features = json.loads((root / "meta/info.json").read_text())["features"]
    merged = features.get(key, {}) | feature
    edit_info(root, features=features | {key: {k: v for k, v in merged.items() if v is not ...}})


def edit_table(file: Path, **columns: Any) -> None:
    """Replace or add columns of a parquet table; None removes one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    made = {n: table.column(n) for n in table.column_names if n not in columns}
    made |= {
        k: pa.array(v) if isinstance(v, list) else v for k, v in columns.items() if v is not None
    }
    pq.write_table(pa.table(made), file)


def tables_of(root: Path) -> list[Path]:
    return sorted((root / "data").rglob("*.parquet"))
