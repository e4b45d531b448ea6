"""LeRobot data sets 2.0, 2.1 and 3.0, read with pyarrow and av; layouts in the format's own ``meta/info.json``."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.data.manifest import DataError
from vla.data.readers.base import Field, Frames, Recording, names_of, need, ranges
from vla.data.readers.files import read_json_file, read_json_lines, read_table
from vla.data.readers.video import frames_at

_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class _Row:
    """Where one episode lies. videos: camera -> (file, seconds into it)."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: dict[str, tuple[Path, float]]


class LeRobotReader:
    """One data set folder.

    Raises:
        DataError: no or broken ``meta/``, an unknown version, or tables without footers (the writer was not finalised).
    """

    format = "lerobot"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = read_json_file(path / "meta" / "info.json")
        version = str(self.info.get("codebase_version", ""))
        if version not in ("v2.0", "v2.1", "v3.0"):
            raise DataError(f"{path / 'meta/info.json'}: codebase_version {version!r}; this program reads v2.0, v2.1 and v3.0")
        self.robot, self.fps = str(self.info.get("robot_type") or ""), float(self.info["fps"])
        self.fields = {key: _field(key, f, path / "meta/info.json") for key, f in self.info["features"].items()}
        self.aliases: dict[str, str] = {}
        if (path / "meta" / "modality.json").is_file():
            self._honour(read_json_file(path / "meta" / "modality.json"))
        self.cameras = [k for k, f in self.fields.items() if f.kind == "image"]
        self.videos = [k for k, f in self.info["features"].items() if f["dtype"] == "video"]
        self.tasks = self._tasks_v3() if version == "v3.0" else self._tasks_v2()
        rows = self._rows_v3() if version == "v3.0" else self._rows_v2()
        gone = [r for r in rows if not r.data.is_file() or any(not v.is_file() for v, _ in r.videos.values())]
        self.missing = []
        if gone:
            self.missing.append(
                f"{len(gone)} of the {len(rows)} episodes that meta/ describes have no files: {ranges([r.index for r in gone])}"
            )
        lost = {r.index for r in gone}
        self.rows = [r for r in rows if r.index not in lost]

    def __len__(self) -> int:
        return len(self.rows)

    def _honour(self, modality: dict[str, Any]) -> None:
        """GR00T's ``meta/modality.json``: names of the parts of state and action, and of the cameras.

        Raises:
            DataError: a part lies outside its field.
        """
        for kind, default in (("state", "observation.state"), ("action", "action")):
            for part, place in modality.get(kind, {}).items():
                key, first, last = place.get("original_key", default), int(place["start"]), int(place["end"])
                field = self.fields.get(key)
                if field is None or not 0 <= first < last <= field.dims:
                    raise DataError(
                        f"{self.path / 'meta/modality.json'}: {kind}.{part} is {first} to {last} of {key!r}, which info.json does not have"
                    )
                names = list(field.names or (f"{key.rsplit('.', 1)[-1]}_{n}" for n in range(field.dims)))
                names[first:last] = [part] if last - first == 1 else [f"{part}_{n}" for n in range(last - first)]
                self.fields[key] = Field("numbers", field.dims, tuple(names))
        for name, place in modality.get("video", {}).items():
            self.aliases[place.get("original_key", f"observation.images.{name}")] = name

    # -- the description -----------------------------------------------------------------------------------------------------------

    def _tasks_v2(self) -> dict[int, str]:
        return {int(t["task_index"]): str(t["task"]) for t in read_json_lines(self.path / "meta" / "tasks.jsonl")}

    def _tasks_v3(self) -> dict[int, str]:
        table = read_table(self.path / "meta" / "tasks.parquet").to_pydict()
        texts: list[str] = next((v for k, v in table.items() if k != "task_index"), [])
        return {int(i): str(t) for i, t in zip(table["task_index"], texts, strict=True)}

    def _rows_v2(self) -> list[_Row]:
        rows = []
        for e in read_json_lines(self.path / "meta" / "episodes.jsonl"):
            index = int(e["episode_index"])
            place = {"episode_index": index, "episode_chunk": index // int(self.info["chunks_size"])}
            videos = {k: (self.path / self.info["video_path"].format(video_key=k, **place), 0.0) for k in self.videos}
            data = self.path / self.info["data_path"].format(**place)
            rows.append(_Row(index, int(e["length"]), tuple(map(str, e.get("tasks", []))), data, videos))
        return sorted(rows, key=lambda r: r.index)

    def _rows_v3(self) -> list[_Row]:
        files = sorted((self.path / "meta" / "episodes").glob("*/*.parquet"))
        if not files:
            raise DataError(f"{self.path / 'meta/episodes'}: no episode tables; the data set is incomplete: download it again")
        rows = []
        for file in files:
            names = (
                [n for n in need("pyarrow.parquet").read_schema(file).names if not n.startswith("stats/")]
                if file.stat().st_size
                else None
            )
            for e in read_table(file, names).to_pylist():
                videos = {}
                for k in self.videos:
                    place = {"chunk_index": e[f"videos/{k}/chunk_index"], "file_index": e[f"videos/{k}/file_index"]}
                    videos[k] = (
                        self.path / self.info["video_path"].format(video_key=k, **place),
                        float(e[f"videos/{k}/from_timestamp"]),
                    )
                data = self.path / self.info["data_path"].format(chunk_index=e["data/chunk_index"], file_index=e["data/file_index"])
                rows.append(_Row(int(e["episode_index"]), int(e["length"]), tuple(e.get("tasks") or ()), data, videos))
        return sorted(rows, key=lambda r: r.index)

    # -- one episode ---------------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: int) -> Recording:
        row = self.rows[index]
        what = f"episode {row.index}"
        table = read_table(row.data, filters=[("episode_index", "==", row.index)])
        if table.num_rows != row.length:
            raise DataError(
                f"{row.data}: {what} has {table.num_rows} rows, meta/ says {row.length}; download it again, or skip bad episodes with --skip-bad"
            )
        if "frame_index" in table.column_names:
            table = table.sort_by("frame_index")
        absent = [k for k in self.fields if k not in self.videos and k not in table.column_names]
        if absent:
            raise DataError(
                f"{row.data}: no column {absent[0]!r}, which meta/info.json declares; it has {', '.join(table.column_names)}"
            )
        columns = {k: table.column(k) for k in table.column_names}
        numbers: dict[str, np.ndarray] = {}
        texts: dict[str, list[str]] = {}
        for key, field in self.fields.items():
            if field.kind == "numbers" and key in columns:
                numbers[key] = _numbers(columns[key], field.dims, f"{row.data}: {key}")
            if (
                key.startswith("annotation.") and field.kind == "numbers" and field.dims == 1
            ):  # GR00T: task numbers that stand for texts
                texts[key] = [self.tasks.get(int(v), "") for v in numbers[key][:, 0]]
            elif field.kind == "text" and key in columns:
                texts[key] = [str(v or "") for v in columns[key].to_pylist()]
        frames: dict[str, Frames] = {}
        times = numbers["timestamp"][:, 0].astype(np.float64) if "timestamp" in numbers else np.arange(row.length) / self.fps
        for key in self.cameras:
            frames[key] = (
                self._video(row, key, times) if key in self.videos else _stored(columns[key], f"{row.data}: {key}", self.path)
            )
        return Recording(f"{row.index:07d}", row.length, self.fps, self._instruction(row, numbers), numbers, frames, texts)

    def _instruction(self, row: _Row, numbers: dict[str, np.ndarray]) -> str:
        if "task_index" in numbers:
            index = int(numbers["task_index"][0, 0])
            if index not in self.tasks:
                raise DataError(
                    f"{self.path / 'meta'}: episode {row.index} has task {index}, which the task list lacks; repair meta/tasks"
                )
            return self.tasks[index]
        return row.tasks[0] if row.tasks else ""

    def _video(self, row: _Row, key: str, times: np.ndarray) -> Frames:
        file, start = row.videos[key]  # this camera's own file, never the data file's number

        def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
            return frames_at(file, [start + float(times[r]) for r in rows], self.fps, f"episode {row.index}")

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
    return Field("numbers", dims, names_of(feature.get("names"), dims, f"{info}: features.{key}.names"))


def _numbers(column: Any, dims: int, where: str) -> np.ndarray:
    try:
        values = np.array(column.to_pylist(), dtype=np.float64).reshape(len(column), -1)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: rows of different lengths or missing values ({error}); repair the table") from error
    if values.shape[1] != dims:
        raise DataError(f"{where}: {values.shape[1]} numbers a row, meta/info.json declares {dims}; repair one of them")
    return values


def _stored(column: Any, where: str, root: Path) -> Frames:
    """Pictures kept in the table as struct{bytes, path}."""

    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        for r in rows:
            cell = column[r].as_py()
            data = cell.get("bytes") or (root / cell["path"]).read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                yield np.asarray(image.convert("RGB"))

    return frames
