"""Where the episodes of a LeRobot data set are: the descriptions of versions 2.0, 2.1 and 3.0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.data.readers.base import need
from vla.data.readers.files import read_json_lines, read_table
from vla.errors import DataError


@dataclass(frozen=True)
class EpisodeFiles:
    """The files of one episode."""

    index: int
    length: int  # rows
    tasks: tuple[str, ...]
    data: Path  # table that has its rows
    videos: dict[str, tuple[Path, float]]  # camera -> (file, start in seconds)

    @property
    def complete(self) -> bool:
        """True if all its files exist."""
        return self.data.is_file() and all(v.is_file() for v, _ in self.videos.values())


def read_tasks(path: Path, version: str) -> dict[int, str]:
    """Task index -> instruction."""
    if version != "v3.0":
        tasks = read_json_lines(path / "meta" / "tasks.jsonl")
        return {int(t["task_index"]): str(t["task"]) for t in tasks}
    table = read_table(path / "meta" / "tasks.parquet").to_pydict()
    texts: list[str] = next((v for k, v in table.items() if k != "task_index"), [])
    return {int(i): str(t) for i, t in zip(table["task_index"], texts, strict=True)}


def read_episodes(path: Path, info: dict[str, Any], videos: list[str]) -> list[EpisodeFiles]:
    """All described episodes, by index; their files may be missing."""
    read = _episodes_v3 if info["codebase_version"] == "v3.0" else _episodes_v2
    return sorted(read(path, info, videos), key=lambda e: e.index)


def _episodes_v2(path: Path, info: dict[str, Any], cameras: list[str]) -> list[EpisodeFiles]:
    episodes = []
    for e in read_json_lines(path / "meta" / "episodes.jsonl"):
        index = int(e["episode_index"])
        place = {"episode_index": index, "episode_chunk": index // int(info["chunks_size"])}
        videos = {k: (path / info["video_path"].format(video_key=k, **place), 0.0) for k in cameras}
        data = path / info["data_path"].format(**place)
        tasks = tuple(map(str, e.get("tasks", [])))
        episodes.append(EpisodeFiles(index, int(e["length"]), tasks, data, videos))
    return episodes


def _episodes_v3(path: Path, info: dict[str, Any], cameras: list[str]) -> list[EpisodeFiles]:
    files = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DataError(
            f"{path / 'meta/episodes'}: no episode tables; the data set is incomplete: "
            "download it again"
        )
    return [
        _episode_v3(path, info, cameras, row)
        for file in files
        for row in read_table(file, _columns(file)).to_pylist()
    ]


def _columns(file: Path) -> list[str] | None:
    """All columns but the statistics, which are large; None for an empty file."""
    if not file.stat().st_size:
        return None
    names = need("pyarrow.parquet").read_schema(file).names
    return [n for n in names if not n.startswith("stats/")]


def _episode_v3(
    path: Path, info: dict[str, Any], cameras: list[str], row: dict[str, Any]
) -> EpisodeFiles:
    videos = {}
    for k in cameras:
        file = info["video_path"].format(
            video_key=k,
            chunk_index=row[f"videos/{k}/chunk_index"],
            file_index=row[f"videos/{k}/file_index"],
        )
        videos[k] = (path / file, float(row[f"videos/{k}/from_timestamp"]))
    data = info["data_path"].format(
        chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
    )
    tasks = tuple(row.get("tasks") or ())
    return EpisodeFiles(int(row["episode_index"]), int(row["length"]), tasks, path / data, videos)
