"""Where the episodes of a LeRobot data set are: the descriptions of versions 2.0, 2.1 and 3.0."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from vla.data.readers.files import (
    SKIP_BAD,
    natural_key,
    read_json_lines,
    read_schema,
    read_table,
)
from vla.data.readers.lerobot_info import Info
from vla.data.readers.video import Clip
from vla.errors import DataError

# Names of the text column in task lists; the index of a pandas table has the last one.
_TEXTS = ("task", "instruction", "language_instruction", "text", "__index_level_0__")


@dataclass(frozen=True)
class EpisodeFiles:
    """The files of one episode."""

    index: int
    length: int | None  # rows; None: not recorded
    tasks: tuple[str, ...]
    data: Path  # table that has its rows
    videos: dict[str, Clip]  # camera -> its part of a video
    rows: tuple[int, int] | None = None  # values of ``index`` in its rows, half open
    problem: str = ""  # why it cannot be used, as a whole message
    extra: dict[str, Any] = field(default_factory=dict)


def read_tasks(root: Path, what: str = "task") -> dict[int, str]:
    """Index -> text from ``meta/tasks.jsonl`` or ``meta/tasks.parquet``; empty without a list.

    Args:
        what: "task"; or "subtask" for ``meta/subtasks.parquet``.

    Raises:
        DataError: a damaged list, or one without a column of texts.
    """
    for file in (root / f"meta/{what}s.jsonl", root / f"meta/{what}s.parquet"):
        if not file.is_file():
            continue
        rows = read_json_lines(file) if file.suffix == ".jsonl" else read_table(file).to_pylist()
        try:
            return {int(row[f"{what}_index"]): _text(row, what) for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{file}: expected a number {what}_index and a text in every row ({error!r})"
            ) from error
    return {}


def _text(row: dict[str, Any], what: str) -> str:
    named = [row[k] for k in (what, *_TEXTS) if isinstance(row.get(k), str)]
    others = [v for k, v in row.items() if isinstance(v, str)]
    if not named and len(others) != 1:
        raise KeyError(what)
    return str((named or others)[0])


def read_episodes(info: Info, cameras: list[str]) -> list[EpisodeFiles]:
    """All described episodes, by index; their files may be missing.

    Episodes that are described twice, or that share rows or frames with another, have a
    ``problem``.

    Args:
        cameras: those recorded as videos.

    Raises:
        DataError: a description is missing or damaged.
    """
    read = _episodes_v3 if info.version == 3 else _episodes_v2
    episodes = sorted(read(info, cameras), key=lambda e: e.index)
    problems: dict[int, str] = {}
    for place, episode in enumerate(episodes):
        problems |= {place: episode.problem} if episode.problem else {}
    problems |= _repeated(episodes) | _overlaps(episodes, cameras)
    return [replace(e, problem=problems.get(n, "")) for n, e in enumerate(episodes)]


def _episodes_v2(info: Info, cameras: list[str]) -> Iterable[EpisodeFiles]:
    file, seen = info.root / "meta/episodes.jsonl", dict[int, Any]()
    for row in read_json_lines(file):
        index = _whole(row.get("episode_index"), f"{file}: episode_index")
        if seen.setdefault(index, row) is not row and seen[index] == row:
            continue  # a recorder that continued wrote the same line again
        chunk = index // info.chunks_size
        place = {"episode_index": index, "episode_chunk": chunk, "chunk_index": chunk}
        place |= {"file_index": index}
        videos = {k: Clip(info.file("video_path", video_key=k, **place)) for k in cameras}
        length = row.get("length")
        length = None if length is None else _whole(length, f"{file}: episode {index}: length")
        data = info.file("data_path", video_key="", **place)
        yield EpisodeFiles(index, length, _tasks(row.get("tasks")), data, videos)


def _episodes_v3(info: Info, cameras: list[str]) -> Iterable[EpisodeFiles]:
    folder = info.root / "meta/episodes"
    files = sorted(folder.glob("**/*.parquet"), key=lambda p: natural_key(str(p)))
    if not files:
        raise DataError(
            f"{folder}: no episode tables; the data set is incomplete: download it again"
        )
    for file in files:
        # The statistics are large and not needed.
        names = [n for n in read_schema(file).names if not n.startswith("stats/")]
        for row in read_table(file, names).to_pylist():
            yield _episode_v3(info, cameras, row, file)


def _episode_v3(info: Info, cameras: list[str], row: dict[str, Any], file: Path) -> EpisodeFiles:
    index = _whole(row.get("episode_index"), f"{file}: episode_index")
    where, problem = f"{file}: episode {index}", ""

    def place(prefix: str) -> dict[str, int]:
        chunk = _whole(row.get(f"{prefix}/chunk_index"), f"{where}: {prefix}/chunk_index")
        number = _whole(row.get(f"{prefix}/file_index"), f"{where}: {prefix}/file_index")
        return {"chunk_index": chunk, "episode_chunk": chunk, "file_index": number}

    length = row.get("length")
    length = None if length is None else _whole(length, f"{where}: length")
    rows = None
    if row.get("dataset_from_index") is not None and row.get("dataset_to_index") is not None:
        rows = (
            _whole(row["dataset_from_index"], f"{where}: dataset_from_index"),
            _whole(row["dataset_to_index"], f"{where}: dataset_to_index"),
        )
        if length is not None and rows[1] - rows[0] != length:
            problem = f"{where}: length {length}, but dataset indices {rows[0]} to {rows[1]}"
    videos = {}
    for key in cameras:
        prefix = f"videos/{key}"
        if row.get(f"{prefix}/file_index") is None:
            continue
        path = info.file("video_path", video_key=key, episode_index=index, **place(prefix))
        start = _seconds(row.get(f"{prefix}/from_timestamp"), 0.0, where)
        end = _seconds(row.get(f"{prefix}/to_timestamp"), None, where)
        videos[key] = Clip(path, start or 0.0, end)
        if end is not None and length is not None and info.fps:
            frames = (end - (start or 0.0)) * info.fps
            if abs(frames - length) > max(2.0, 0.05 * length):
                problem = (
                    f"{where}: {length} rows, but camera {key!r} is given {start:.3f} to "
                    f"{end:.3f} s, which are {frames:.0f} rows at {info.fps:g} Hz"
                )
    data = info.file("data_path", video_key="", episode_index=index, **place("data"))
    problem = f"{problem}; the description is damaged: {SKIP_BAD}" if problem else ""
    return EpisodeFiles(index, length, _tasks(row.get("tasks")), data, videos, rows, problem)


def _whole(value: Any, where: str) -> int:
    """A whole number, also as text."""
    try:
        number = float(value)
        if number == int(number) and number >= 0 and not isinstance(value, bool):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{where}: expected a whole number, found {value!r}; repair or download it")


def _seconds(value: Any, default: float | None, where: str) -> float | None:
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {value!r} is not a time in seconds") from error


def _tasks(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),) if value else ()


def _repeated(episodes: list[EpisodeFiles]) -> dict[int, str]:
    found: dict[int, str] = {}
    for n, (first, second) in enumerate(pairwise(episodes)):
        if first.index == second.index:
            text = f"{first.data}: episode {first.index} is described twice in meta/; {SKIP_BAD}"
            found |= {n: text, n + 1: text}
    return found


def _overlaps(episodes: list[EpisodeFiles], cameras: list[str]) -> dict[int, str]:
    """Episodes that share rows of a table or frames of a video with another one."""
    found: dict[int, str] = {}

    def check(
        part: Callable[[EpisodeFiles], tuple[Path, float, float] | None], what: str, unit: str
    ) -> None:
        places = [(p, n) for n, e in enumerate(episodes) if (p := part(e)) is not None]
        last: tuple[tuple[Path, float, float], int] | None = None
        for place, n in sorted(places):
            if last and last[0][0] == place[0] and place[1] < last[0][2] - 1e-3:
                a, b = sorted((episodes[last[1]].index, episodes[n].index))
                text = (
                    f"{place[0]}: episodes {a} and {b} share {what} from {place[1]:g} to "
                    f"{min(last[0][2], place[2]):g}{unit}, as wrongly merged data sets do; "
                    f"merge them again, or skip bad episodes with --skip-bad"
                )
                found.setdefault(last[1], text)
                found.setdefault(n, text)
            if not (last and last[0][0] == place[0] and last[0][2] > place[2]):
                last = (place, n)

    def rows(episode: EpisodeFiles) -> tuple[Path, float, float] | None:
        return (episode.data, *episode.rows) if episode.rows else None

    check(rows, "rows", "")
    for camera in cameras:

        def part(episode: EpisodeFiles, camera: str = camera) -> tuple[Path, float, float] | None:
            clip = episode.videos.get(camera)
            return (clip.file, clip.start, clip.end) if clip and clip.end is not None else None

        check(part, f"frames of camera {camera!r}", " s")
    return found
