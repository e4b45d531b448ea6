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
from vla.data.manifest import Manifest, load_manifest
from vla.data.readers.base import need
from vla.data.samples import read_frame, read_json, read_steps
from vla.data.shards import iter_tar_samples
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
        episodes_per_file: episodes that share a table, and a video per camera.
        quality: H.264's constant rate factor; lower is better, 18 is visually lossless.

    Raises:
        DataError: ``out`` exists.
    """

    def __init__(
        self, out: Path, manifest: Manifest, episodes_per_file: int = 50, quality: int = 18
    ) -> None:
        if out.exists():
            raise DataError(f"{out}: exists already; choose another folder or delete this one")
        assert manifest.action_space is not None
        self.out, self.folder = out, out.with_name(out.name + ".tmp")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.space, self.per_file = manifest.action_space, episodes_per_file
        self.fps, self.quality, self.robot = float(self.space.rate_hz), quality, ""
        self.tasks: dict[str, int] = {}  # instruction -> index
        self.episodes: list[dict[str, Any]] = []  # rows of the table of episodes
        self.total = 0  # rows of all episodes
        self.rows: dict[str, list[Any]] = {}  # rows of the current file, by column
        self.videos: dict[str, _Video] = {}  # current file of each camera
        self.seconds: dict[str, float] = {}  # length of the current file of each camera
        self.sides: dict[str, tuple[int, int]] = {}  # camera -> (height, width)
        self.values: dict[str, list[np.ndarray]] = {}  # feature -> values, for the statistics

    def add(
        self, meta: dict[str, Any], steps: dict[str, np.ndarray], sample: dict[str, Any]
    ) -> None:
        """Write one packed episode."""
        length, place, episode = len(steps["actions"]), self._place(), len(self.episodes)
        task = self.tasks.setdefault(meta["instruction"], len(self.tasks))
        self.robot = self.robot or meta["robot"]
        columns: dict[str, np.ndarray] = {"action": steps["actions"].astype(np.float32)}
        if "state" in steps:
            columns["observation.state"] = steps["state"].astype(np.float32)
        columns |= {
            "timestamp": (np.arange(length) / self.fps).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, episode),
            "index": np.arange(self.total, self.total + length),
            "task_index": np.full(length, task),
        }
        for key, values in columns.items():
            self.rows.setdefault(key, []).extend(values)
            flat = values.astype(np.float64).reshape(length, -1)
            self.values.setdefault(key, []).append(flat)
        row: dict[str, Any] = {
            "episode_index": episode,
            "tasks": [meta["instruction"]],
            "length": length,
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
        statistics = {
            k: feature_statistics(np.concatenate(v), k in self.sides)
            for k, v in self.values.items()
        }
        write_json(meta / "stats.json", statistics)
        counts = (len(self.episodes), self.total, len(self.tasks))
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
            features["observation.state"] = {"dtype": "float32", "shape": [width], "names": None}
        for key in _BOOKKEEPING:
            dtype = "float32" if key == "timestamp" else "int64"
            features[key] = {"dtype": dtype, "shape": [1], "names": None}
        return features


def to_lerobot(source: Path, out: Path, progress: bool = True) -> Path:
    """Convert packed shards to a LeRobot 3.0 folder, train episodes first; returns ``out``.

    Raises:
        DataError: the shards have no robot episodes, or ``out`` exists.
    """
    manifest = load_manifest(source)
    if manifest.action_space is None:
        raise DataError(f"{source}: web images; LeRobot data sets have robot episodes only")
    writer = LeRobotWriter(out, manifest)
    names = [*manifest.splits["train"], *manifest.splits["val"]]
    shards = iter([{"url": str(source / name)} for name in names])
    columns: tuple[Any, ...] = Progress.get_default_columns()
    text = "{task.completed}/{task.total} episodes"
    with Progress(*columns, text, disable=not progress) as bar:
        task = bar.add_task("to LeRobot 3.0", total=manifest.samples)
        for sample in iter_tar_samples(source, shards):
            writer.add(read_json(sample), read_steps(sample), sample)
            bar.advance(task)
    return writer.close()
