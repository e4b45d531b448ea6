"""Export of packed robot episodes as a LeRobot 3.0 data set."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from vla.data.images import decode_image
from vla.data.lerobot_meta import (
    DATA_FILE,
    FILES_PER_CHUNK,
    VIDEO_FILE,
    dataset_info,
    feature_statistics,
    video_feature,
    write_episodes,
    write_table,
    write_tasks,
)
from vla.data.manifest import Manifest
from vla.data.packed import open_packed
from vla.data.readers.base import need
from vla.data.samples import read_frame, read_instructions, read_json, read_steps
from vla.data.shards import read_samples
from vla.errors import DataError
from vla.utils.io import write_json

_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


class _Video:
    """One H.264 file of one camera.

    Every second frame is a key frame, as in LeRobot's own files, so that random access is fast.
    """

    def __init__(self, path: Path, side: tuple[int, int], fps: float, quality: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = Fraction(fps).limit_denominator(1000)
        self.container = need("av").open(str(path), "w")
        self.stream = self.container.add_stream(
            "libx264", rate=rate, options={"crf": str(quality), "g": "2", "bf": "0"}
        )
        self.stream.height, self.stream.width, self.stream.pix_fmt = *side, "yuv420p"

    def add(self, image: np.ndarray) -> None:
        frame = need("av").VideoFrame.from_ndarray(image, format="rgb24")
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def close(self) -> None:
        for packet in self.stream.encode():
            self.container.mux(packet)
        self.container.close()


class LeRobotWriter:
    """Writes episodes one by one; ``close`` writes ``meta/`` and renames the folder to ``out``.

    Args:
        with_plans: the episodes have plans, which become LeRobot's subtasks.
        episodes_per_file: episodes that share a table, and a video per camera.
        quality: H.264's constant rate factor; lower is better, 18 is visually lossless.

    Raises:
        DataError: ``out`` exists.
    """

    def __init__(
        self,
        out: Path,
        manifest: Manifest,
        with_plans: bool = False,
        episodes_per_file: int = 50,
        quality: int = 18,
    ) -> None:
        if out.exists():
            raise DataError(f"{out}: exists already; choose another folder or delete this one")
        assert manifest.action_space is not None
        self.with_plans = with_plans
        self.out, self.folder = out, out.with_name(out.name + ".tmp")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.space, self.per_file = manifest.action_space, episodes_per_file
        self.fps, self.quality, self.robot = float(self.space.rate_hz), quality, ""
        self.tasks: dict[str, int] = {}  # instruction -> index
        self.subtasks: dict[str, int] = {}  # plan -> index
        self.state_names = list(manifest.state_names) or None
        self.splits = {"train": 0}  # split -> episodes
        self.episodes: list[dict[str, Any]] = []  # rows of the table of episodes
        self.total = 0  # rows of all episodes
        self.rows: dict[str, list[Any]] = {}  # rows of the current file, by column
        self.videos: dict[str, _Video] = {}  # current file of each camera
        self.seconds: dict[str, float] = {}  # length of the current file of each camera
        self.sides: dict[str, tuple[int, int]] = {}  # camera -> (height, width)
        self.values: dict[str, list[np.ndarray]] = {}  # feature -> values, for the statistics

    def add(self, sample: dict[str, Any], split: str) -> None:
        """Write one packed episode of ``split``; the episodes of a split follow each other."""
        meta, steps = read_json(sample), read_steps(sample)
        length, place, episode = len(steps["actions"]), self._place(), len(self.episodes)
        texts = read_instructions(meta, length)
        self.splits[split] = self.splits.get(split, 0) + 1
        self.robot = self.robot or meta["robot"]
        columns: dict[str, np.ndarray] = {"action": steps["actions"].astype(np.float32)}
        if "state" in steps:
            columns["observation.state"] = steps["state"].astype(np.float32)
        columns |= {
            "timestamp": (np.arange(length) / self.fps).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, episode),
            "index": np.arange(self.total, self.total + length),
            "task_index": np.array([_number(self.tasks, text) for text in texts]),
        }
        if self.with_plans:
            plans = meta["plans"] or [""] * length
            numbers = np.array([_number(self.subtasks, text) for text in plans])
            columns["subtask_index"] = numbers
        for key, values in columns.items():
            self.rows.setdefault(key, []).extend(values)
            flat = values.astype(np.float64).reshape(length, -1)
            self.values.setdefault(key, []).append(flat)
        row: dict[str, Any] = {
            "episode_index": episode,
            "tasks": list(dict.fromkeys(texts)),
            "length": length,
            "source_key": meta["key"],
            "data/chunk_index": place["chunk_index"],
            "data/file_index": place["file_index"],
            "dataset_from_index": self.total,
            "dataset_to_index": self.total + length,
        }
        for camera in meta["cameras"]:
            frames = (read_frame(sample, meta, camera, t) for t in range(length))
            images = [decode_image(frame, sample["__key__"]) for frame in frames]
            row |= self._add_video(f"observation.images.{camera}", images, place)
        self.episodes.append(row)
        self.total += length
        if len(self.episodes) % self.per_file == 0:
            self._finish_file(place)

    def _add_video(
        self, key: str, images: list[np.ndarray], place: dict[str, int]
    ) -> dict[str, Any]:
        """Append images to a camera's video; returns their place for the table of episodes."""
        if key not in self.videos:
            height, width = images[0].shape[:2]
            self.sides[key], self.seconds[key] = (height, width), 0.0
            path = self.folder / VIDEO_FILE.format(video_key=key, **place)
            self.videos[key] = _Video(path, self.sides[key], self.fps, self.quality)
        for image in images:
            self.videos[key].add(np.ascontiguousarray(image))
        sampled = np.stack(images[:: max(1, len(images) // 4)])
        self.values.setdefault(key, []).append(sampled.reshape(-1, 3) / 255.0)
        start = self.seconds[key]
        self.seconds[key] = end = start + len(images) / self.fps
        return {f"videos/{key}/{k}": v for k, v in place.items()} | {
            f"videos/{key}/from_timestamp": start,
            f"videos/{key}/to_timestamp": end,
        }

    def _place(self, episode: int | None = None) -> dict[str, int]:
        """Numbers of the file of an episode (default: the next one)."""
        file = (len(self.episodes) if episode is None else episode) // self.per_file
        return {"chunk_index": file // FILES_PER_CHUNK, "file_index": file % FILES_PER_CHUNK}

    def _finish_file(self, place: dict[str, int]) -> None:
        for video in self.videos.values():
            video.close()
        self.videos = {}
        write_table(self.folder / DATA_FILE.format(**place), self.rows)
        self.rows = {}

    def close(self) -> Path:
        """Write ``meta/`` and rename the folder; returns ``out``."""
        if self.rows:
            self._finish_file(self._place(len(self.episodes) - 1))
        meta = self.folder / "meta"
        write_episodes(meta, self.episodes)
        write_tasks(meta, self.tasks)
        if self.with_plans:
            write_tasks(meta, self.subtasks, "subtask")
        statistics = {
            k: feature_statistics(np.concatenate(v), k in self.sides)
            for k, v in self.values.items()
        }
        write_json(meta / "stats.json", statistics)
        counts = (self.splits, self.total, len(self.tasks))
        info = dataset_info(self.robot, self.fps, *counts, self._features())
        write_json(meta / "info.json", info)
        return self.folder.replace(self.out)

    def _features(self) -> dict[str, Any]:
        features = {k: video_feature(*side, self.fps) for k, side in self.sides.items()}
        features["action"] = {
            "dtype": "float32",
            "shape": [self.space.dim],
            "names": list(self.space.names),
        }
        if "observation.state" in self.values:
            width = self.values["observation.state"][0].shape[1]
            features["observation.state"] = {
                "dtype": "float32",
                "shape": [width],
                "names": self.state_names,
            }
        for key in (*_BOOKKEEPING, *(["subtask_index"] if self.with_plans else [])):
            dtype = "float32" if key == "timestamp" else "int64"
            features[key] = {"dtype": dtype, "shape": [1], "names": None}
        return features


def _number(numbers: dict[str, int], text: str) -> int:
    """The number of a text; a new text gets the next one."""
    return numbers.setdefault(text, len(numbers))


def to_lerobot(source: Path, out: Path, progress: bool = True) -> Path:
    """Convert packed shards to a LeRobot 3.0 folder, train episodes first; returns ``out``.

    Kept are the instruction of every row (``task_index``), plans (``subtask_index``), the split
    (``splits`` in ``info.json``) and the episodes' keys (``source_key`` in the table of episodes).

    Raises:
        DataError: the shards have no robot episodes, or ``out`` exists.
    """
    packed = open_packed(source)
    manifest = packed.manifest
    if manifest.action_space is None:
        raise DataError(f"{source}: web images; LeRobot data sets have robot episodes only")
    rows = [*packed.rows("train"), *packed.rows("val")]
    with_plans = any(read_json(sample)["plans"] for sample in read_samples(source, rows))
    writer = LeRobotWriter(out, manifest, with_plans)
    columns: tuple[Any, ...] = Progress.get_default_columns()
    text = "{task.completed}/{task.total} episodes"
    with Progress(*columns, text, disable=not progress) as bar:
        task = bar.add_task("to LeRobot 3.0", total=manifest.samples)
        for row, sample in zip(rows, read_samples(source, rows), strict=True):
            writer.add(sample, packed.split_of(row))
            bar.advance(task)
    return writer.close()
