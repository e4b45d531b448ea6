"""MCAP files and ROS 2 bags: messages at times become rows at a chosen rate."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.config.registry import register
from vla.data.readers.bag_topics import BagTimes, Topic, find_topics, gaps, numbers_at, scan
from vla.data.readers.bag_values import image_of, text_of
from vla.data.readers.bags import METADATA, Bag, find_bags
from vla.data.readers.base import Frames, OnDemand, Reader, Recording
from vla.data.readers.files import SKIP_BAD, numbering_gaps
from vla.data.row_texts import first_text, varying
from vla.errors import BadSample, DataError

_NS = 1e9
_COMMAND = re.compile(r"action|command|cmd|target|goal|leader|setpoint", re.IGNORECASE)
_LANGUAGE = re.compile(r"instruction|language|task|prompt", re.IGNORECASE)
_PLAIN = re.compile(r"/?(image(_raw|_rect|_color|_rect_color)*|compressed(Depth)?|color|raw)$")
_SEVERAL = 5  # gaps that are listed


@register("reader", "ros")
class RosReader(Reader):
    """An ``.mcap`` file, a ROS 2 bag, or a folder of them; each recording is one episode.

    Rows are ``mapping.fps`` a second, from the first time at which all used topics have a value.
    Numbers, texts and images of a row are those of the latest message until its time.

    Raises:
        DataError: no recording can be read.
    """

    format, layout, order = "ros", "*.mcap, or metadata.yaml of a ROS 2 bag", 38

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True for an MCAP file or ROS 2 bag, or a folder with one."""
        if path.is_file():
            return path.suffix == ".mcap"
        places = [path, *(p for p in path.iterdir() if p.is_dir())] if path.is_dir() else []
        return any(
            any(p.glob("*.mcap")) or any(p.glob("*.db3")) or (p / METADATA).exists() for p in places
        )

    def __init__(self, path: Path) -> None:
        self.path, self.missing = path, []
        self.bags = find_bags(path)
        self.times: list[BagTimes | str] = []  # of every bag; a text: why it cannot be read
        for bag in self.bags:
            try:
                self.times.append(scan(bag))
            except DataError as error:
                self.times.append(str(error))
        good = [n for n, t in enumerate(self.times) if isinstance(t, BagTimes)]
        errors = [t for t in self.times if isinstance(t, str)]
        if not good:
            raise DataError(errors[0] if errors else f"{path}: no .mcap files; record with rosbag2")
        self.topics = find_topics([self.bags[n] for n in good])
        self.fields = {n: t.field for n, t in self.topics.items() if t.field is not None}
        self.unusable = {n: t.error for n, t in self.topics.items() if t.error}
        self.aliases = _camera_names(self.topics)
        self._choose_defaults()
        self.rate, self.used = 0.0, set[str]()
        gone = numbering_gaps(self._name(b.path) for b in self.bags)
        self.general_notes = [*errors, *gone, *self._notes()]
        self.notes = self.general_notes

    def _choose_defaults(self) -> None:
        vectors = [
            n
            for n, f in self.fields.items()
            if f.kind == "numbers" and not n.endswith((".velocity", ".effort"))
        ]
        commands = [n for n in vectors if _COMMAND.search(n)]
        states = [n for n in vectors if n.endswith(".position") and n not in commands]
        self.default_action = commands if len(commands) == 1 else ()
        self.default_state = states if len(states) == 1 else ()

    def _notes(self) -> Iterator[str]:
        yield (
            "rows: mapping.fps a second by the time of recording (log time); each has the latest "
            "message until then (no interpolation)"
        )
        if not self.default_state and any(f.kind == "numbers" for f in self.fields.values()):
            yield "no state unless mapping.state is set: several number topics or none"

    def choose_rows(self, rows_per_second: float, used: Collection[str]) -> None:
        self.rate = rows_per_second
        images = [n for n, f in self.fields.items() if f.kind == "image" and not f.depth]
        has_camera = any(self.fields[n].kind == "image" for n in used if n in self.fields)
        self.used = set(used) | set(() if has_camera else images)
        topics = {self.topics[n].topic for n in self.used if n in self.topics}
        found = [
            text
            for bag, times in zip(self.bags, self.times, strict=True)
            if isinstance(times, BagTimes)
            for text in gaps(bag, times, topics, self.rate)
        ]
        more = [f"{len(found) - _SEVERAL} more such gaps"] if len(found) > _SEVERAL else []
        self.notes = [*self.general_notes, *found[:_SEVERAL], *more]

    def _name(self, file: Path) -> str:
        inside = file.relative_to(self.path).as_posix() if file != self.path else ""
        return inside.removesuffix(".mcap")

    def __len__(self) -> int:
        return len(self.bags)

    def location(self, index: int) -> str:
        return str(self.bags[index].path)

    def _row_times(self, index: int) -> np.ndarray:
        """Times of the rows in ns."""
        bag, times = self.bags[index], self.times[index]
        if isinstance(times, str):
            raise BadSample(times)
        if self.rate <= 0:
            raise DataError(f"{self.path}: messages have no rows; set source.mapping.fps")
        topics = {self.topics[n].topic for n in self.used if n in self.topics}
        absent = sorted(t for t in topics if t not in times.first)
        if absent:
            raise DataError(f"{bag.path}: no messages of {', '.join(absent)}; {SKIP_BAD}")
        start = max((times.first[t] for t in topics), default=times.start)
        steady = [times.last[t] for t in topics if times.is_steady(t)]
        end = min(steady, default=times.end)
        if end < start:
            raise DataError(
                f"{bag.path}: no time at which all of {', '.join(sorted(topics))} have messages; "
                f"{SKIP_BAD}"
            )
        count = int((end - start) / _NS * self.rate + 1e-6) + 1
        return start + np.round(np.arange(count) * _NS / self.rate).astype(np.int64)

    def __getitem__(self, index: int) -> Recording:
        rows, bag = self._row_times(index), self.bags[index]
        kinds: dict[str, list[str]] = {"numbers": [], "text": [], "image": []}
        for name, field in self.fields.items():
            kinds[field.kind].append(name)
        numbers = OnDemand(
            {n: functools.partial(numbers_at, bag, self.topics[n], rows) for n in kinds["numbers"]}
        )
        texts = OnDemand({n: functools.partial(self._texts, bag, n, rows) for n in kinds["text"]})
        said = next((texts[n] for n in kinds["text"] if _LANGUAGE.search(n)), [])
        about = {k.lower(): v for k, v in bag.texts().items()}
        named = (about.get(k, "") for k in ("instruction", "language_instruction", "task"))
        return Recording(
            self._name(bag.path) or f"{index:07d}",
            len(rows),
            self.rate,
            first_text(said) or next((t for t in named if t), ""),
            numbers,
            {n: self._frames(bag, n, rows) for n in kinds["image"]},
            texts,
            varying(said),
        )

    def _texts(self, bag: Bag, name: str, times: np.ndarray) -> list[str]:
        """The text of every row; a single message holds for the whole recording."""
        found = [
            (time, text_of(decode()) or "")
            for _, time, _, decode in bag.messages([self.topics[name].topic])
        ]
        if not found:
            return [""] * len(times)
        if len(found) == 1:
            return [found[0][1]] * len(times)
        at = np.searchsorted([t for t, _ in found], times, side="right") - 1
        return [found[n][1] if n >= 0 else "" for n in at]

    def _frames(self, bag: Bag, name: str, times: np.ndarray) -> Frames:
        topic, field = self.topics[name].topic, self.fields[name]

        def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
            messages = bag.messages([topic])
            latest: Any = None
            following = next(messages, None)
            for r in rows:
                while following is not None and following[1] <= times[r]:
                    latest, following = following, next(messages, None)
                if latest is None:
                    raise DataError(f"{bag.path}: {topic}: no image until row {r}; {SKIP_BAD}")
                yield image_of(latest[3](), f"{bag.path}: {topic}, row {r}", field.depth)

        return frames


def _camera_names(topics: dict[str, Topic]) -> dict[str, str]:
    """Image field -> camera name: the topic without ``image_raw`` and ``compressed``."""
    names: dict[str, str] = {}
    for field, topic in topics.items():
        if topic.field is not None and topic.field.kind == "image":
            name = field
            while (shorter := _PLAIN.sub("", name)) not in (name, ""):
                name = shorter
            names[field] = re.sub(r"\W+", "_", name)
    return names if len(set(names.values())) == len(names) else {}
