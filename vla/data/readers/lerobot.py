"""LeRobot data sets 2.0, 2.1 and 3.0, read with pyarrow and av."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vla.config.registry import register
from vla.data.readers.base import Field, Frames, OnDemand, Reader, Recording, ranges
from vla.data.readers.files import SKIP_BAD, read_json_file
from vla.data.readers.lerobot_columns import numbers_of, table_frames, texts_of
from vla.data.readers.lerobot_fields import read_fields
from vla.data.readers.lerobot_index import EpisodeFiles, read_episodes, read_tasks
from vla.data.readers.lerobot_info import dtype_of, read_info
from vla.data.readers.lerobot_rows import Rows
from vla.data.readers.video import clip_frames
from vla.data.row_texts import varying
from vla.errors import BadSample, DataError


@register("reader", "lerobot")
class LeRobotReader(Reader):
    """A folder with ``meta/info.json``.

    Raises:
        DataError: no or broken ``meta/``, an unknown version, or no readable table.
    """

    format, layout, order = "lerobot", "meta/info.json", 10

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if there is a ``meta/info.json``."""
        return (path / "meta" / "info.json").is_file()

    def __init__(self, path: Path) -> None:
        self.path, self.info = path, read_info(path)
        self.robot, self.fps = self.info.robot, self.info.fps
        self.videos = [k for k, f in self.info.features.items() if dtype_of(f) == "video"]
        self.tasks, self.subtasks = read_tasks(path), read_tasks(path, "subtask")
        described = read_episodes(self.info, self.videos)
        self.episodes = [e for e in described if e.data.is_file()]
        absent = [e.index for e in described if not e.data.is_file()]
        listed = f"{len(absent)} of the {len(described)} episodes that meta/ describes have no "
        self.missing = [f"{listed}files: {ranges(absent)}"] if absent else []
        found = read_fields(self.info, [e.data for e in self.episodes], self.videos)
        self.fields = found.fields
        if self.subtasks and "subtask_index" in self.fields:
            self.fields["subtask"] = Field("text")  # the texts behind the indices
        self.unusable: dict[str, str] = found.unusable
        self.notes: list[str] = [*self.info.notes, *found.notes]
        if self.info.episodes not in (0, len(described)):
            self.notes.append(
                f"meta/info.json says {self.info.episodes} episodes, meta/ lists {len(described)}"
            )
        self._find_cameras()
        self.aliases: dict[str, str] = {}  # image field -> camera name
        if (path / "meta/modality.json").is_file():
            self._apply_modality(path / "meta/modality.json")
        rate = self._rate()
        if not self.fps and rate:
            self.fps = rate
            self.notes.append(f"meta/info.json has no fps; the time stamps give {rate:g} Hz")
        elif rate and abs(rate / self.fps - 1) > 0.05:
            self.notes.append(
                f"meta/info.json says {self.fps:g} fps, but the time stamps give {rate:g} Hz"
            )
        self._find_bad()

    def _find_bad(self) -> None:
        """List episodes that the descriptions show to be damaged."""
        self.bad = {n: e.problem for n, e in enumerate(self.episodes) if e.problem}
        if self.bad:
            listed = ranges(list({self.episodes[n].index for n in self.bad}))
            first = next(iter(self.bad.values()))
            self.notes.append(f"{len(self.bad)} damaged episodes ({listed}); first: {first}")

    def _find_cameras(self) -> None:
        """Note cameras that no episode has a file of."""
        for key in self.videos:
            clips = [e.videos[key] for e in self.episodes if key in e.videos]
            if self.episodes and not any(clip.file.is_file() for clip in clips):
                looked = f"; looked for {clips[0].file}" if clips else ""
                self.unusable[key] = f"camera {key!r} is declared, but has no files{looked}"
                self.notes.append(f"{self.unusable[key]}: left out")

    def _apply_modality(self, path: Path) -> None:
        """Take names from GR00T's ``meta/modality.json``: parts of state and action, cameras.

        Raises:
            DataError: a part lies outside its field.
        """
        modality, key = read_json_file(path), ""
        try:
            for kind, default in (("state", "observation.state"), ("action", "action")):
                for part, place in modality.get(kind, {}).items():
                    key = place.get("original_key") or default
                    first, end = int(place["start"]), int(place["end"])
                    field = self.fields.get(key)
                    if field is None or not 0 <= first < end <= field.dims:
                        raise DataError(
                            f"{path}: {kind}.{part} is {first} to {end} of {key!r}, "
                            "which info.json does not have"
                        )
                    short = key.rsplit(".", 1)[-1]
                    names = list(field.names or (f"{short}_{n}" for n in range(field.dims)))
                    several = [f"{part}_{n}" for n in range(end - first)]
                    names[first:end] = [part] if end - first == 1 else several
                    self.fields[key] = Field("numbers", field.dims, tuple(names))
            for name, place in modality.get("video", {}).items():
                self.aliases[place.get("original_key") or f"observation.images.{name}"] = name
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: expected state, action and video with parts such as "
                f'{{"start": 0, "end": 7}} ({error!r}); repair or delete it'
            ) from error

    def _rate(self) -> float:
        """Rows per second from the time stamps of the first readable episode; 0: unknown."""
        for index in range(min(8, len(self.episodes))):
            try:
                times = self._times(Rows(self.episodes[index], self.info.version), 0.0)
            except (DataError, BadSample):
                continue
            if times is not None and len(times) > 1 and (step := np.median(np.diff(times))) > 0:
                return round(1.0 / float(step), 3)
        return 0.0

    def __len__(self) -> int:
        return len(self.episodes)

    def leave_out_incomplete(self, used: Collection[str]) -> None:
        """Leave out episodes that lack a video of a used camera."""
        cameras = [k for k in self.videos if k in used]
        self.episodes = [
            e
            for e in self.episodes
            if all(k in e.videos and e.videos[k].file.is_file() for k in cameras)
        ]
        self.bad = {n: e.problem for n, e in enumerate(self.episodes) if e.problem}

    def location(self, index: int) -> str:
        """The table of an episode."""
        return str(self.episodes[index].data)

    def __getitem__(self, index: int) -> Recording:
        episode = self.episodes[index]
        if episode.problem:
            raise DataError(episode.problem)
        rows = Rows(episode, self.info.version)
        where = f"{episode.data}: episode {episode.index}"
        numbers: dict[str, Callable[[], np.ndarray]] = {}
        texts: dict[str, Callable[[], list[str]]] = {}
        frames: dict[str, Frames] = {}
        for key, field in self.fields.items():
            place = f"{where}: {key}"
            if key in self.videos:
                frames[key] = self._video_frames(episode, key, rows)
            elif field.kind == "image":
                frames[key] = self._column_frames(rows, key, place)
            elif field.kind == "text":
                texts[key] = partial(lambda k: texts_of(rows[k]), key)
            else:
                read = partial(lambda k, d, p: numbers_of(rows[k], d, p), key, field.dims, place)
                numbers[key] = read
                if key.startswith("annotation.") and field.dims == 1:
                    # GR00T annotates with task indices, which stand for texts.
                    texts[key] = partial(
                        lambda r: [self.tasks.get(int(v), "") for v in r()[:, 0]], read
                    )
        if self.subtasks and "subtask_index" in numbers:
            listed = numbers["subtask_index"]
            texts["subtask"] = lambda: [self.subtasks.get(int(v), "") for v in listed()[:, 0]]
        tasks = self._tasks(episode, rows)
        return Recording(
            f"{episode.index:07d}",
            rows.count,
            self.fps,
            tasks[0] if tasks else "",
            OnDemand(numbers),
            frames,
            OnDemand(texts),
            instructions=varying(tasks),
            split=self.info.split(episode.index),
        )

    def _tasks(self, episode: EpisodeFiles, rows: Rows) -> list[str]:
        """The instruction of every row.

        Raises:
            DataError: the task list lacks a task, or an episode has several and no list says
                which row has which.
        """
        listed = episode.tasks
        if "task_index" not in rows.names:
            return list(listed[:1]) * rows.count
        where = f"{episode.data}: episode {episode.index}: task_index"
        indices = numbers_of(rows["task_index"], 1, where)[:, 0].astype(int).tolist()
        if not self.tasks and len(listed) == 1:
            return list(listed) * rows.count
        for index in indices:
            if index not in self.tasks:
                raise DataError(
                    f"{self.path / 'meta'}: episode {episode.index} has task {index}, "
                    "which the task list lacks; repair meta/tasks"
                )
        return [self.tasks[i] for i in indices]

    def _times(self, rows: Rows, fps: float) -> np.ndarray | None:
        """Time stamps of the rows, s; None: unknown."""
        if "timestamp" in rows.names:
            return numbers_of(rows["timestamp"], 1, rows.where + ": timestamp")[:, 0]
        return np.arange(rows.count) / fps if fps else None

    def _video_frames(self, episode: EpisodeFiles, key: str, every: Rows) -> Frames:
        def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
            if key not in episode.videos:
                raise DataError(
                    f"{self.path / 'meta/episodes'}: episode {episode.index} has no columns of "
                    f"camera {key!r}; {SKIP_BAD}"
                )
            # A camera's file number may differ from the table's.
            clip, times = episode.videos[key], self._times(every, self.fps)
            where = f"episode {episode.index}"
            yield from clip_frames(clip, times, every.count, rows, where, partial(self._note, key))

        return frames

    def _column_frames(self, every: Rows, key: str, where: str) -> Frames:
        def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
            depth = self.fields[key].depth
            yield from table_frames(every[key], self.path, where, depth)(rows)

        return frames

    def _note(self, camera: str, message: str) -> None:
        """Keep the first message about each camera."""
        begin = f"camera {camera!r}: "
        if not any(n.startswith(begin) for n in self.notes):
            self.notes.append(begin + message)
