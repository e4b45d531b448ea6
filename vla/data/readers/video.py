"""Frames of a video for the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.base import need
from vla.data.readers.files import SKIP_BAD, refuse_pointer
from vla.data.readers.pixels import MAX_SIDE_PX
from vla.errors import BadSample, DataError

_EVEN = 0.25  # share of the period by which even time stamps may deviate
_SPANS = 0.05  # share by which the durations of rows and frames may differ


@dataclass(frozen=True)
class Clip:
    """The part of a video that belongs to one episode."""

    file: Path
    start: float = 0.0  # seconds from the video's first frame
    end: float | None = None  # None: the video's end


def clip_frames(
    clip: Clip,
    times: np.ndarray | None,
    count: int,
    rows: Sequence[int],
    where: str,
    note: Callable[[str], None],
) -> Iterator[np.ndarray]:
    """The frames of some rows in rising order, (H, W, 3) uint8.

    Args:
        times: time stamps of all ``count`` rows, seconds from the clip's start; None: row n is
            frame n.
        where: the episode, for messages.
        note: gets a message if the time stamps have a constant offset, see ``align``.

    Raises:
        DataError: the file is missing or damaged, or rows and frames do not fit.
    """
    av = need("av")
    if not clip.file.is_file():
        raise DataError(f"{clip.file}: this video of {where} is missing; {SKIP_BAD}")
    refuse_pointer(clip.file)
    try:
        with av.open(str(clip.file)) as container:
            stamps, seconds = _frame_stamps(container, clip)
            found, message = align(times, seconds, count, f"{clip.file}: {where}")
            if message:
                note(f"{where}: {message}")
            yield from _decode(container, [int(stamps[found[r]]) for r in rows])
    except (DataError, BadSample):
        raise
    except Exception as error:  # av raises FFmpegError, IndexError, EOFError and more
        reason = str(error) or type(error).__name__
        raise DataError(f"{clip.file}: damaged video of {where} ({reason}); {SKIP_BAD}") from error


def _frame_stamps(container: Any, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Time stamps of the clip's frames, in the stream's unit and in seconds from its start.

    They are taken from the packets, which need no decoding.
    """
    stream = container.streams.video[0]
    unit = float(stream.time_base)
    first = stream.start_time or 0
    half = 0.5 / float(stream.average_rate or 30)
    begin = clip.start - half if clip.start > 0 else -np.inf
    end = np.inf if clip.end is None else clip.end - half
    if clip.start > 0:
        container.seek(first + int(begin / unit), stream=stream, backward=True)
    stamps = []
    for packet in container.demux(stream):
        if packet.pts is not None and not packet.is_discard:
            stamps.append(packet.pts)
        if packet.dts is not None and (packet.dts - first) * unit > end + 1.0:
            break
    if not stamps:
        raise ValueError("no frames")
    kept = np.unique(np.array(stamps, dtype=np.int64))
    seconds = (kept - first) * unit
    inside = (seconds >= begin) & (seconds < end)
    return kept[inside], seconds[inside] - clip.start


def align(
    times: np.ndarray | None, frames: np.ndarray, count: int, where: str
) -> tuple[np.ndarray, str]:
    """For each of ``count`` rows the index of its frame, and a message about an offset.

    As many rows as frames, over the same duration: row n is frame n. Otherwise a row has the
    nearest frame. Even time stamps that begin up to one row late, or that do not overlap with the
    video, have a constant offset, which is removed.

    Args:
        times: (count,) time stamps of the rows, s; None: unknown.
        frames: rising times of the frames, s.

    Raises:
        DataError: a row has no frame within half a period.
    """
    if not len(frames):
        raise DataError(f"{where}: the video has no frames there; {SKIP_BAD}")
    spacing = float(np.median(np.diff(frames))) if len(frames) > 1 else 0.0
    if times is None:
        if count != len(frames):
            raise DataError(
                f"{where}: {count} rows without time stamps, {len(frames)} frames; {SKIP_BAD}"
            )
        return np.arange(count), ""
    if not np.isfinite(times).all():
        row = int(np.argmin(np.isfinite(times)))
        raise BadSample(f"{where}: row {row} has no valid time stamp; {SKIP_BAD}")
    period = float(np.median(np.diff(times))) if count > 1 else spacing
    offset = float(np.median(times - np.arange(count) * period)) - float(frames[0])
    span = float(times[-1] - times[0])
    close = abs(span - float(frames[-1] - frames[0])) <= _SPANS * span + max(period, spacing)
    if count == len(frames) > 1 and not span:
        return np.arange(count), "all time stamps of the rows are equal: row n is frame n"
    if count == len(frames) and close:
        late = float(np.median(times - frames))
        shifted = abs(late) > 0.25 * max(period, spacing)
        return np.arange(count), _offset_message(late, "row n is frame n") if shifted else ""
    if count > 1 and not span:
        raise BadSample(
            f"{where}: all time stamps of the rows are equal, and the video has {len(frames)} "
            f"frames for {count} rows; {SKIP_BAD}"
        )
    if (np.diff(times) < 0).any():
        row = int(np.argmax(np.diff(times) < 0)) + 1
        raise BadSample(f"{where}: the time stamps go back at row {row}; {SKIP_BAD}")
    message = ""
    even = np.abs(times - times[0] - np.arange(count) * period).max() <= _EVEN * period
    if even and abs(offset) > 0.5 * period:
        outside = times[0] > frames[-1] + period or times[-1] < frames[0] - period
        longer = float(frames[-1] - frames[0]) - span
        if abs(offset) <= 1.5 * period or (outside and abs(longer) <= 1.5 * period):
            times = times - offset
            message = _offset_message(offset, "the first row has the first frame")
        elif outside:
            raise DataError(
                f"{where}: the time stamps have an offset of {offset:.3f} s to the video, and it "
                f"has {len(frames)} frames for {count} rows; {SKIP_BAD}"
            )
    right = np.clip(np.searchsorted(frames, times), 1, max(1, len(frames) - 1))
    right = np.minimum(right, len(frames) - 1)
    left = np.maximum(right - 1, 0)
    found = np.where(times - frames[left] <= frames[right] - times, left, right)
    gaps = np.abs(frames[found] - times)
    if gaps.max() > 0.5 * max(period, spacing) + 1e-3:
        now = float(times[np.argmax(gaps > 0.5 * max(period, spacing) + 1e-3)])
        raise DataError(
            f"{where} needs a frame at {now:.3f} s, the video has frames up to "
            f"{float(frames[-1]):.3f} s there; video and rows do not fit: {SKIP_BAD}"
        )
    return found, message


def _offset_message(offset: float, meaning: str) -> str:
    return (
        f"the time stamps of the rows have a constant offset of {offset:.3f} s to the frames of "
        f"the video: {meaning}"
    )


def _decode(container: Any, wanted: list[int]) -> Iterator[np.ndarray]:
    """Frames by their exact time stamps, in rising order; a repeated one is given again."""
    if not wanted:
        return
    stream = container.streams.video[0]
    if max(stream.codec_context.width, stream.codec_context.height) > MAX_SIDE_PX:
        raise ValueError(f"frames larger than {MAX_SIDE_PX} px")
    stream.thread_type = "AUTO"
    done = 0
    for frame in _decoded_from(container, stream, wanted[0]):
        if frame.pts is None or frame.pts < wanted[done]:
            continue
        if frame.pts > wanted[done] or frame.is_corrupt:
            break
        image = frame.to_ndarray(format="rgb24")
        while wanted[done] == frame.pts:
            yield image
            done += 1
            if done == len(wanted):
                return
    at = (wanted[done] - (stream.start_time or 0)) * float(stream.time_base)
    raise ValueError(f"the frame at {at:.3f} s cannot be decoded")


def _decoded_from(container: Any, stream: Any, stamp: int) -> Iterator[Any]:
    """Decoded frames from the key frame before ``stamp``; from the start if seeking fails."""
    container.seek(stamp, stream=stream, backward=True)
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None or first.pts is None or first.pts > stamp:
        container.seek(stream.start_time or 0, stream=stream, backward=True)
        frames = container.decode(stream)
    else:
        yield first
    yield from frames
