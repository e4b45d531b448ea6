"""Frames of a video by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vla.data.readers.base import need
from vla.data.readers.files import SKIP_BAD
from vla.errors import DataError


def frames_at(path: Path, times: Sequence[float], fps: float, what: str) -> Iterator[np.ndarray]:
    """The frames nearest to rising ``times`` (seconds from the start), (H, W, 3) uint8.

    The video is decoded once, from the key frame before the first time.

    Raises:
        DataError: the file is missing or damaged, or a time has no frame within half a frame.
    """
    av = need("av")
    if not path.is_file():
        raise DataError(
            f"{path}: this video of {what} is missing; "
            "download it again, or skip bad episodes with --skip-bad"
        )
    wanted = iter(times)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start = float((stream.start_time or 0) * stream.time_base)
            container.seek(
                max(0, int((times[0] + start - 1.0 / fps) / stream.time_base)),
                stream=stream,
                backward=True,
            )
            now = next(wanted)
            last = None
            for frame in container.decode(stream):
                last = float(frame.time) - start
                if abs(last - now) > 0.5 / fps:
                    if last > now:
                        break
                    continue
                image = frame.to_ndarray(format="rgb24")
                while abs(last - now) <= 0.5 / fps:  # a repeated time gives the same frame
                    yield image
                    following = next(wanted, None)
                    if following is None:
                        return
                    now = following
    except av.error.FFmpegError as error:
        raise DataError(
            f"{path}: damaged video of {what} ({error}); "
            "download it again, or skip bad episodes with --skip-bad"
        ) from error
    end = "no frames" if last is None else f"frames up to {last:.3f} s"
    raise DataError(
        f"{path}: {what} needs a frame at {now:.3f} s, the video has {end} there; "
        f"video and rows do not fit: {SKIP_BAD}"
    )
