"""Packed robot episodes out again, as a LeRobot 3.0 data set that LeRobot itself reads."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from vla.data.manifest import DataError, load_manifest, write_json
from vla.data.pictures import decode_image
from vla.data.readers.base import need
from vla.data.samples import cut_frame, read_json, read_steps
from vla.data.shards import untarred

_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_FILES_A_CHUNK = 1000
_BOOKS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


class _Video:
    """One camera's file: frames in, H.264 out; every second frame is a key frame, as LeRobot writes, so that any frame is near one."""

    def __init__(self, path: Path, side: tuple[int, int], fps: float, quality: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = Fraction(fps).limit_denominator(1000)
        self.container = need("av").open(str(path), "w")
        self.stream = self.container.add_stream("libx264", rate=rate, options={"crf": str(quality), "g": "2", "bf": "0"})
        self.stream.height, self.stream.width, self.stream.pix_fmt = *side, "yuv420p"

    def add(self, picture: np.ndarray) -> None:
        frame = need("av").VideoFrame.from_ndarray(picture, format="rgb24")
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def close(self) -> None:
        for packet in self.stream.encode():
            self.container.mux(packet)
        self.container.close()


class LeRobotWriter:
    """Writes episode after episode; ``close`` writes ``meta/`` and gives the folder its name.

    Args:
        episodes_a_file: episodes that share a table and a video a camera. quality: H.264's constant rate factor (lower is better; 18: hardly to be seen).

    Raises:
        DataError: ``out`` exists.
    """

    def __init__(self, out: Path, manifest: dict[str, Any], episodes_a_file: int = 50, quality: int = 18) -> None:
        if out.exists():
            raise DataError(f"{out}: exists already; choose another folder or delete this one")
        self.out, self.folder = out, out.with_name(out.name + ".tmp")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.space, self.each, self.quality = manifest["action_space"], episodes_a_file, quality
        self.fps, self.robot = float(self.space["rate_hz"]), ""
        self.tasks: dict[str, int] = {}
        self.episodes: list[dict[str, Any]] = []
        self.rows: dict[str, list[Any]] = {}
        self.videos: dict[str, _Video] = {}
        self.sides: dict[str, tuple[int, int]] = {}
        self.seconds: dict[str, float] = {}
        self.pools: dict[str, list[np.ndarray]] = {}
        self.total = 0

    @property
    def _file(self) -> dict[str, int]:
        number = len(self.episodes) // self.each
        return {"chunk_index": number // _FILES_A_CHUNK, "file_index": number % _FILES_A_CHUNK}

    def add(self, meta: dict[str, Any], steps: dict[str, np.ndarray], sample: dict[str, Any]) -> None:
        """One packed episode."""
        length, place, episode = len(steps["actions"]), self._file, len(self.episodes)
        task = self.tasks.setdefault(meta["instruction"], len(self.tasks))
        self.robot = self.robot or meta["robot"]
        columns: dict[str, Any] = {"action": steps["actions"]} | ({"observation.state": steps["state"]} if "state" in steps else {})
        for key, values in columns.items():
            self.rows.setdefault(key, []).extend(values.astype(np.float32))
        books: dict[str, Any] = {
            "timestamp": (np.arange(length) / self.fps).astype(np.float32), "frame_index": np.arange(length), "episode_index": np.full(length, episode),
            "index": np.arange(self.total, self.total + length), "task_index": np.full(length, task),
        }  # fmt: skip
        for key, values in books.items():
            self.rows.setdefault(key, []).extend(values)
        for key, values in (columns | books).items():
            self.pools.setdefault(key, []).append(np.asarray(values, np.float64).reshape(length, -1))
        row: dict[str, Any] = {
            "episode_index": episode, "tasks": [meta["instruction"]], "length": length, "data/chunk_index": place["chunk_index"],
            "data/file_index": place["file_index"], "dataset_from_index": self.total, "dataset_to_index": self.total + length,
        }  # fmt: skip
        for camera in meta["cameras"]:
            key = f"observation.images.{camera}"
            pictures = [decode_image(cut_frame(sample, meta, camera, t), sample["__key__"]) for t in range(length)]
            if key not in self.videos:
                path = self.folder / _VIDEO.format(video_key=key, **place)
                self.sides[key], self.seconds[key] = pictures[0].shape[:2], 0.0
                self.videos[key] = _Video(path, self.sides[key], self.fps, self.quality)
            for picture in pictures:
                self.videos[key].add(np.ascontiguousarray(picture))
            self.pools.setdefault(key, []).append(np.stack(pictures[:: max(1, length // 4)]).reshape(-1, 3) / 255.0)
            start = self.seconds[key]
            self.seconds[key] = start + length / self.fps
            row |= {f"videos/{key}/{k}": v for k, v in place.items()}
            row |= {f"videos/{key}/from_timestamp": start, f"videos/{key}/to_timestamp": self.seconds[key]}
        self.episodes.append(row)
        self.total += length
        if len(self.episodes) % self.each == 0:
            self._finish_file(place)

    def _finish_file(self, place: dict[str, int]) -> None:
        for video in self.videos.values():
            video.close()
        self.videos = {}
        self._table(self.folder / _DATA.format(**place), self.rows)
        self.rows = {}

    def _table(self, path: Path, columns: dict[str, Any]) -> None:
        pa, parquet = need("pyarrow"), need("pyarrow.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        made = {}
        for key, values in columns.items():
            if isinstance(values[0], np.ndarray):
                made[key] = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values), pa.float32()), len(values[0]))
            else:
                made[key] = pa.array(values, pa.float32() if key == "timestamp" else None)
        parquet.write_table(pa.table(made), path)

    def close(self) -> Path:
        """``meta/``, then the folder's own name."""
        if self.rows:
            self._finish_file(
                {
                    "chunk_index": (len(self.episodes) - 1) // self.each // _FILES_A_CHUNK,
                    "file_index": (len(self.episodes) - 1) // self.each % _FILES_A_CHUNK,
                }
            )
        meta = self.folder / "meta"
        place = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        rows = [r | place for r in self.episodes]
        pa, parquet = need("pyarrow"), need("pyarrow.parquet")
        (meta / "episodes/chunk-000").mkdir(parents=True)
        parquet.write_table(pa.table({k: [r[k] for r in rows] for k in rows[0]}), meta / "episodes/chunk-000/file-000.parquet")
        # LeRobot looks tasks up by a pandas index of their text; pandas itself is not needed to say so
        index = {
            "name": None,
            "field_name": "__index_level_0__",
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": None,
        }
        number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None}
        about = {
            "index_columns": ["__index_level_0__"],
            "column_indexes": [],
            "columns": [number, index],
            "attributes": {},
            "pandas_version": "2.2.0",
        }
        table = pa.table({"task_index": list(self.tasks.values()), "__index_level_0__": list(self.tasks)})
        parquet.write_table(table.replace_schema_metadata({b"pandas": json.dumps(about).encode()}), meta / "tasks.parquet")
        write_json(meta / "stats.json", {k: _statistics(np.concatenate(v), k in self.sides) for k, v in self.pools.items()})
        write_json(meta / "info.json", self._info())
        return self.folder.replace(self.out)

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for key, (height, width) in self.sides.items():
            video = {
                "video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False,
                "video.fps": self.fps, "video.channels": 3, "has_audio": False,
            }  # fmt: skip
            features[key] = {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": video}
        features["action"] = {"dtype": "float32", "shape": [len(self.space["names"])], "names": self.space["names"]}
        if "observation.state" in self.pools:
            features["observation.state"] = {
                "dtype": "float32",
                "shape": [self.pools["observation.state"][0].shape[1]],
                "names": None,
            }
        for key in _BOOKS:
            features[key] = {"dtype": "float32" if key == "timestamp" else "int64", "shape": [1], "names": None}
        fps = int(self.fps) if self.fps == int(self.fps) else self.fps
        return {
            "codebase_version": "v3.0", "robot_type": self.robot or "unknown", "total_episodes": len(self.episodes), "total_frames": self.total,
            "total_tasks": len(self.tasks), "chunks_size": _FILES_A_CHUNK, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": fps,
            "splits": {"train": f"0:{len(self.episodes)}"}, "data_path": _DATA, "video_path": _VIDEO, "features": features,
        }  # fmt: skip


def _statistics(values: np.ndarray, image: bool) -> dict[str, Any]:
    shape = (3, 1, 1) if image else (values.shape[1],)
    levels = dict(zip(("q01", "q10", "q50", "q90", "q99"), np.quantile(values, [0.01, 0.1, 0.5, 0.9, 0.99], axis=0), strict=True))
    rows = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0), **levels}
    return {k: v.reshape(shape).tolist() for k, v in rows.items()} | {"count": [len(values)]}


def to_lerobot(source: Path, out: Path, progress: bool = True) -> Path:
    """Packed shards to a LeRobot 3.0 folder, train episodes first.

    Raises:
        DataError: the shards hold no robot episodes, or ``out`` exists.
    """
    manifest = load_manifest(source)
    if manifest["action_space"] is None:
        raise DataError(f"{source}: web pictures, not robot episodes; LeRobot has no place for them")
    writer = LeRobotWriter(out, manifest)
    shards = iter([{"url": str(source / s)} for split in ("train", "val") for s in manifest["splits"][split]])
    with Progress(*Progress.get_default_columns(), "{task.completed}/{task.total} episodes", disable=not progress) as bar:
        task = bar.add_task("to LeRobot 3.0", total=manifest["samples"])
        for sample in untarred(source, shards):
            writer.add(read_json(sample), read_steps(sample), sample)
            bar.advance(task)
    return writer.close()
