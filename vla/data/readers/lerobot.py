"""LeRobot data sets 2.0, 2.1 and 3.0, read with pyarrow and av."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.config.registry import register
from vla.data.readers.base import Field, Frames, Reader, Recording, names_of, ranges
from vla.data.readers.files import read_json_file, read_table
from vla.data.readers.lerobot_index import EpisodeFiles, read_episodes, read_tasks
from vla.data.readers.video import frames_at
from vla.errors import DataError

_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@register("reader", "lerobot")
class LeRobotReader(Reader):
    """A folder with ``meta/info.json``.

    Raises:
        DataError: no or broken ``meta/``, an unknown version, or unfinished tables.
    """

    format, layout, order = "lerobot", "meta/info.json", 10

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if there is a ``meta/info.json``."""
        return (path / "meta" / "info.json").is_file()

    def __init__(self, path: Path) -> None:
        self.path = path
        info = read_json_file(path / "meta" / "info.json")
        version = str(info.get("codebase_version", ""))
        if version not in ("v2.0", "v2.1", "v3.0"):
            raise DataError(
                f"{path / 'meta/info.json'}: codebase_version {version!r}; "
                "this program reads v2.0, v2.1 and v3.0"
            )
        self.robot, self.fps = str(info.get("robot_type") or ""), float(info["fps"])
        self.fields = {
            key: _field(key, f, path / "meta/info.json") for key, f in info["features"].items()
        }
        self.aliases: dict[str, str] = {}  # image field -> camera name
        if (path / "meta" / "modality.json").is_file():
            self._apply_modality(read_json_file(path / "meta" / "modality.json"))
        self.cameras = [k for k, f in self.fields.items() if f.kind == "image"]
        self.videos = [k for k, f in info["features"].items() if f["dtype"] == "video"]
        self.tasks = read_tasks(path, version)
        episodes = read_episodes(path, info, self.videos)
        self.episodes = [e for e in episodes if e.complete]
        absent = [e.index for e in episodes if not e.complete]
        self.missing = (
            [
                f"{len(absent)} of the {len(episodes)} episodes that meta/ describes "
                f"have no files: {ranges(absent)}"
            ]
            if absent
            else []
        )

    def _apply_modality(self, modality: dict[str, Any]) -> None:
        """Take names from GR00T's ``meta/modality.json``: parts of state and action, cameras.

        Raises:
            DataError: a part lies outside its field.
        """
        for kind, default in (("state", "observation.state"), ("action", "action")):
            for part, place in modality.get(kind, {}).items():
                key = place.get("original_key", default)
                first, end = int(place["start"]), int(place["end"])
                field = self.fields.get(key)
                if field is None or not 0 <= first < end <= field.dims:
                    raise DataError(
                        f"{self.path / 'meta/modality.json'}: {kind}.{part} is {first} to {end} "
                        f"of {key!r}, which info.json does not have"
                    )
                short = key.rsplit(".", 1)[-1]
                names = list(field.names or (f"{short}_{n}" for n in range(field.dims)))
                several = [f"{part}_{n}" for n in range(end - first)]
                names[first:end] = [part] if end - first == 1 else several
                self.fields[key] = Field("numbers", field.dims, tuple(names))
        for name, place in modality.get("video", {}).items():
            self.aliases[place.get("original_key", f"observation.images.{name}")] = name

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Recording:
        episode = self.episodes[index]
        columns = self._columns(episode)
        numbers: dict[str, np.ndarray] = {}
        texts: dict[str, list[str]] = {}
        for key, field in self.fields.items():
            if field.kind == "numbers" and key in columns:
                numbers[key] = _numbers(columns[key], field.dims, f"{episode.data}: {key}")
            if key.startswith("annotation.") and field.kind == "numbers" and field.dims == 1:
                # GR00T annotates with task indices, which stand for texts.
                texts[key] = [self.tasks.get(int(v), "") for v in numbers[key][:, 0]]
            elif field.kind == "text" and key in columns:
                texts[key] = [str(v or "") for v in columns[key].to_pylist()]
        if "timestamp" in numbers:
            times = numbers["timestamp"][:, 0].astype(np.float64)
        else:
            times = np.arange(episode.length) / self.fps
        frames: dict[str, Frames] = {}
        for key in self.cameras:
            if key in self.videos:
                frames[key] = self._video_frames(episode, key, times)
            else:
                frames[key] = _table_frames(columns[key], self.path)
        return Recording(
            f"{episode.index:07d}",
            episode.length,
            self.fps,
            self._instruction(episode, numbers),
            numbers,
            frames,
            texts,
        )

    def _columns(self, episode: EpisodeFiles) -> dict[str, Any]:
        """The episode's rows, by column."""
        table = read_table(episode.data, filters=[("episode_index", "==", episode.index)])
        if table.num_rows != episode.length:
            raise DataError(
                f"{episode.data}: episode {episode.index} has {table.num_rows} rows, meta/ says "
                f"{episode.length}; download it again, or skip bad episodes with --skip-bad"
            )
        names = table.column_names
        if "frame_index" in names:
            table = table.sort_by("frame_index")
        absent = [k for k in self.fields if k not in self.videos and k not in names]
        if absent:
            raise DataError(
                f"{episode.data}: no column {absent[0]!r}, which meta/info.json declares; "
                f"it has {', '.join(names)}"
            )
        return {k: table.column(k) for k in names}

    def _instruction(self, episode: EpisodeFiles, numbers: dict[str, np.ndarray]) -> str:
        if "task_index" in numbers:
            index = int(numbers["task_index"][0, 0])
            if index not in self.tasks:
                raise DataError(
                    f"{self.path / 'meta'}: episode {episode.index} has task {index}, "
                    "which the task list lacks; repair meta/tasks"
                )
            return self.tasks[index]
        return episode.tasks[0] if episode.tasks else ""

    def _video_frames(self, episode: EpisodeFiles, key: str, times: np.ndarray) -> Frames:
        file, start = episode.videos[key]  # a camera's file number may differ from the table's

        def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
            wanted = [start + float(times[r]) for r in rows]
            return frames_at(file, wanted, self.fps, f"episode {episode.index}")

        return frames


def _field(key: str, feature: dict[str, Any], info: Path) -> Field:
    shape = [int(n) for n in feature.get("shape") or [1]]
    if feature["dtype"] in ("video", "image"):
        return Field("image")
    if feature["dtype"] == "string":
        return Field("text")
    dims = int(np.prod(shape)) if shape else 1
    if key in _BOOKKEEPING or len(shape) > 1:  # the names of a matrix are those of its axes
        return Field("numbers", dims)
    where = f"{info}: features.{key}.names"
    return Field("numbers", dims, names_of(feature.get("names"), dims, where))


def _numbers(column: Any, dims: int, where: str) -> np.ndarray:
    try:
        values = np.array(column.to_pylist(), dtype=np.float64).reshape(len(column), -1)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}: rows of different lengths or missing values ({error}); repair the table"
        ) from error
    if values.shape[1] != dims:
        raise DataError(
            f"{where}: {values.shape[1]} numbers a row, meta/info.json declares {dims}; "
            "repair one of them"
        )
    return values


def _table_frames(column: Any, root: Path) -> Frames:
    """Images in the table, as struct{bytes, path}."""

    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        for r in rows:
            cell = column[r].as_py()
            data = cell.get("bytes") or (root / cell["path"]).read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                yield np.asarray(image.convert("RGB"))

    return frames
