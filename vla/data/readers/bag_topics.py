"""Topics of a recording as fields, the times of their messages, and their numbers at row times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vla.data.readers.bag_values import (
    image_of,
    is_depth_image,
    is_image,
    is_read,
    joints_of,
    numbers_of,
    short_type,
    text_of,
)
from vla.data.readers.bags import Bag
from vla.data.readers.base import Field
from vla.data.readers.files import SKIP_BAD
from vla.errors import DataError

_STEADY_S = 0.5  # a topic with a median gap up to this is sent all the time
_GAP_S, _GAP_FACTOR = 0.5, 5.0  # longer gaps of a steady topic are said
_LATE_S = 0.5  # rows this long before a topic's first complete message have its value
_RECORDINGS = 5  # in which a topic is looked for that cannot be read in the first
_JOINT_MESSAGES = 50  # from which the joints of a topic are known
_NS = 1e9


@dataclass(frozen=True)
class Topic:
    """One field of a topic's messages."""

    topic: str
    field: Field | None  # None: see ``error``
    part: str = ""  # of a JointState: position, velocity or effort
    error: str = ""  # why the topic cannot be used


@dataclass(frozen=True)
class BagTimes:
    """Times of a recording's messages in ns, by topic."""

    first: dict[str, int]
    last: dict[str, int]
    median: dict[str, float]  # gap between messages
    gaps: dict[str, list[tuple[int, int]]]  # (begin, length) of unusually long ones
    start: int
    end: int

    def is_steady(self, topic: str) -> bool:
        """True for a topic that is sent all the time, not only at changes."""
        return self.median[topic] <= _STEADY_S * _NS


def scan(bag: Bag) -> BagTimes:
    """Read the times of all messages; this also reads and checks all of the file.

    Raises:
        DataError: the recording is damaged or empty.
    """
    times: dict[str, list[int]] = defaultdict(list)
    for topic, time, _, _ in bag.messages():
        times[topic].append(time)
    if not times:
        raise DataError(f"{bag.path}: no messages; {SKIP_BAD}")
    median: dict[str, float] = {}
    gaps: dict[str, list[tuple[int, int]]] = {}
    for topic, found in times.items():
        found.sort()
        between = np.diff(found)
        median[topic] = float(np.median(between)) if len(between) else float("inf")
        limit = max(_GAP_S * _NS, _GAP_FACTOR * median[topic])
        gaps[topic] = [(found[n], int(between[n])) for n in np.flatnonzero(between > limit)]
    first = {t: f[0] for t, f in times.items()}
    last = {t: f[-1] for t, f in times.items()}
    return BagTimes(first, last, median, gaps, min(first.values()), max(last.values()))


def gaps(bag: Bag, times: BagTimes, topics: Collection[str], rate: float) -> Iterator[str]:
    """Messages about used topics that pause, or that are slower than the rows."""
    for topic in sorted(topics):
        if topic not in times.first or not times.is_steady(topic):
            continue
        for begin, length in times.gaps[topic]:
            at = (begin - times.start) / _NS
            yield (
                f"{bag.path}: {topic} has no messages for {length / _NS:.1f} s after {at:.1f} s; "
                "rows in this time repeat the last one"
            )
        if times.median[topic] * rate > 1.5 * _NS:
            yield (
                f"{bag.path}: {topic} has {_NS / times.median[topic]:.3g} messages a second, fewer "
                f"than rows ({rate:g}): rows repeat them"
            )


def find_topics(bags: Sequence[Bag]) -> dict[str, Topic]:
    """Field -> topic, from the first messages of every topic in some recordings."""
    found: dict[str, Topic] = {}
    for bag in bags[:_RECORDINGS]:
        inside = _topics_of(bag)
        found |= {n: t for n, t in inside.items() if n not in found or found[n].error}
        if not any(t.error for t in found.values()):
            break
    named = {t.topic for t in found.values() if not t.error}
    return {n: t for n, t in found.items() if not t.error or t.topic not in named}


def _topics_of(bag: Bag) -> dict[str, Topic]:
    found: dict[str, Topic] = {}
    joints: dict[str, list[dict[str, dict[str, float]]]] = defaultdict(list)
    seen: set[str] = set()
    for topic, _, kind, decode in bag.messages():
        name = topic.strip("/")
        is_joints = short_type(kind) == "JointState"
        if topic in seen or (is_joints and len(joints[topic]) >= _JOINT_MESSAGES):
            continue
        where = f"{bag.path}: {topic}"
        try:
            if is_joints:
                joints[topic].append(joints_of(decode()))
                continue
            seen.add(topic)
            if not is_read(kind):
                raise DataError(f"{where}: messages of type {kind} are not read")
            found[name] = Topic(topic, _field(name, kind, decode(), where))
        except ValueError as error:  # DataError and BadSample
            seen.add(topic)
            found[name] = Topic(topic, None, error=str(error))
    for topic, messages in joints.items():
        found |= _joint_topics(topic, messages)
    return found


def _field(name: str, kind: str, message: object, where: str) -> Field:
    if is_image(kind):
        depth = is_depth_image(message)
        image_of(message, where, depth)  # refuses encodings that are not read
        return Field("image", depth=depth)
    if text_of(message) is not None:
        return Field("text")
    numbers = numbers_of(message, where)
    if not numbers:
        raise DataError(f"{where}: messages of type {kind} have neither numbers nor one text")
    several = tuple(numbers) if "data_0" not in numbers else ()
    return Field("numbers", len(numbers), several if len(numbers) > 1 else ())


def _joint_topics(topic: str, messages: list[dict[str, dict[str, float]]]) -> dict[str, Topic]:
    """Fields for positions, velocities and efforts; joints of all messages, in order of names."""
    found: dict[str, Topic] = {}
    for part in ("position", "velocity", "effort"):
        names = list(dict.fromkeys(j for m in messages for j, v in m.items() if part in v))
        if names:
            field = Field("numbers", len(names), tuple(names))
            found[f"{topic.strip('/')}.{part}"] = Topic(topic, field, part)
    return found


def numbers_at(bag: Bag, topic: Topic, times: np.ndarray) -> np.ndarray:
    """(rows, dims): the latest message of a topic until each time, in ns.

    Joints that are sent in separate messages of one topic are put together.

    Raises:
        DataError: a message of another width, or no message until the first row.
    """
    assert topic.field is not None
    names, dims = list(topic.field.names), topic.field.dims
    stamps: list[int] = []
    rows: list[list[float]] = []
    latest: dict[str, float] = {}
    for _, time, _, decode in bag.messages([topic.topic]):
        if topic.part:
            for joint, values in joints_of(decode()).items():
                if topic.part in values:
                    latest[joint] = values[topic.part]
            if any(n not in latest for n in names):
                continue
            row = [latest[n] for n in names]
        else:
            row = list(numbers_of(decode(), f"{bag.path}: {topic.topic}").values())
        if len(row) != dims:
            raise DataError(
                f"{bag.path}: {topic.topic}: {len(row)} numbers in the message at "
                f"{(time - times[0]) / _NS:.2f} s after the first row, others have {dims}; "
                f"{SKIP_BAD}"
            )
        stamps.append(time)
        rows.append(row)
    if not rows or stamps[0] - times[0] > _LATE_S * _NS:
        raise DataError(f"{bag.path}: {topic.topic}: no complete message until row 0; {SKIP_BAD}")
    at = np.searchsorted(stamps, times, side="right") - 1
    return np.array(rows, np.float64)[np.maximum(at, 0)]
