"""Every row gets the nearest frame of its video, whatever the rates and time stamps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_files import (
    edit_table,
    tables_of,
    write_lerobot2,
    write_lerobot3,
    write_video,
)
from robot_files import LENGTHS, identify, image_of

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.readers.video import Clip, align, clip_frames
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError


def top_video(root: Path, episode: int) -> Path:
    return next(root.glob(f"videos/*/observation.images.top/episode_{episode:06d}.mp4"))


def aligned(times: Any, frames: Any) -> tuple[list[int], str]:
    found, message = align(np.array(times, float), np.array(frames, float), len(times), "e")
    return found.tolist(), message


@pytest.mark.parametrize("factor", [1, 2, 3, 6, 10])
def test_a_faster_video_gives_the_frame_at_the_time_of_the_row(factor: int) -> None:
    rows, frames = np.arange(12) / 10, np.arange(12 * factor) / (10 * factor)
    assert aligned(rows, frames) == ([factor * n for n in range(12)], "")


def test_a_slower_video_repeats_frames_and_a_video_without_a_common_rate_is_nearest() -> None:
    assert aligned(np.arange(8) / 10, np.arange(4) / 5)[0] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert aligned(np.arange(6) / 10, np.arange(20) / 29.97)[0] == [0, 3, 6, 9, 12, 15]


@pytest.mark.parametrize("offset", [0.02, 0.05, 0.1, 3.0, 1.7e9, -0.2])
def test_as_many_rows_as_frames_with_a_constant_offset_are_one_to_one(offset: float) -> None:
    found, message = aligned(np.arange(12) / 10 + offset, np.arange(12) / 10)
    assert found == list(range(12))
    said = abs(offset) > 0.03
    assert (f"constant offset of {offset:.3f} s" in message) == said


@pytest.mark.parametrize("offset", [0.1, 1.7e9])
def test_one_frame_more_does_not_shift_the_others(offset: float) -> None:
    found, message = aligned(np.arange(12) / 10 + offset, np.arange(13) / 10)
    assert found == list(range(12)) and "constant offset" in message


def test_equal_time_stamps_are_no_time_stamps() -> None:
    found, message = aligned([0.0] * 6, np.arange(6) / 10)
    assert found == list(range(6)) and "all time stamps of the rows are equal" in message
    with pytest.raises((DataError, BadSample), match="time stamps"):
        aligned([0.0] * 6, np.arange(9) / 10)


def test_rows_that_begin_later_in_the_video_keep_their_time() -> None:
    assert aligned(np.arange(5) / 10 + 0.7, np.arange(20) / 10)[0] == [7, 8, 9, 10, 11]


def test_uneven_time_stamps_and_variable_frame_rates_are_kept() -> None:
    times = np.array([0, 0.1, 0.3, 0.35, 0.6, 0.9])
    assert aligned(times, times)[0] == list(range(6))
    assert aligned(times, np.arange(19) / 20)[0] == [0, 2, 6, 7, 12, 18]
    video = np.sort(np.concatenate([times, [0.2, 0.5]]))
    assert aligned(times, video)[0] == [0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize(
    ("times", "frames", "message"),
    [
        (np.arange(5) / 10, [0, 0.1], r"needs a frame at 0\.200 s, the video has frames up to"),
        (np.arange(9) / 10, np.arange(9) / 30, r"needs a frame at 0\.400 s"),
        (np.arange(5) / 10 + 1e9, np.arange(30) / 10, r"offset of 1000000000\.000 s .* 30 frames"),
        ([0, 0.1, 0.05, 0.2], np.arange(9) / 10, r"time stamps go back at row 2"),
        ([0, np.nan, 0.2], np.arange(3) / 10, r"row 1 has no valid time stamp"),
        ([0.0], [], r"no frames there"),
    ],
)
def test_rows_without_a_frame_are_refused(times: Any, frames: Any, message: str) -> None:
    with pytest.raises((DataError, BadSample), match=message):
        aligned(times, frames)


def frames_of(source: RobotSource, index: int, camera: str = "top") -> list[int]:
    return [identify(decode_image(f, "x"))[1] for f in source[index].images[camera]]


@pytest.mark.parametrize("factor", [3, 6])
def test_lerobot_rows_get_the_right_frames_of_a_faster_video(factor: int, tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d", lengths=(3, 3))
    for e in range(2):
        images = [image_of(e, min(t // factor, 9)) for t in range(3 * factor)]
        images = [i if t % factor == 0 else image_of(e, 11) for t, i in enumerate(images)]
        write_video(top_video(root, e), images, 10 * factor)
    source = RobotSource(str(root), Mapping(size=32, image_format="ppm"))
    assert [frames_of(source, e) for e in range(2)] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("offset", [0.1, 1.7e9])
@pytest.mark.parametrize("more", [0, 1])
def test_late_and_clock_time_stamps_are_corrected_and_named(
    offset: float, more: int, tmp_path: Path
) -> None:
    root = write_lerobot2(tmp_path / "d")
    for e, n in enumerate(LENGTHS):
        edit_table(tables_of(root)[e], timestamp=[offset + t / 10 for t in range(n)])
        write_video(top_video(root, e), [image_of(e, t) for t in range(n + more)])
    source = RobotSource(str(root), Mapping(size=32, image_format="ppm"))
    assert [frames_of(source, e) for e in range(3)] == [list(range(n)) for n in LENGTHS]
    assert any(f"offset of {offset:.3f} s" in note for note in source.notes)


def encode(path: Path, images: list[np.ndarray], stamps: list[int], **options: str) -> None:
    """An H.264 video with given time stamps in units of 1/100 s."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=100, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for image, stamp in zip(images, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_b_frames_and_variable_rates_give_exact_frames_from_any_row(tmp_path: Path) -> None:
    stamps = [0, 10, 25, 30, 47, 50, 61, 70, 88, 90]
    file = tmp_path / "v.mp4"
    encode(file, [image_of(1, t) for t in range(10)], stamps, bf="3", g="4", crf="12")
    times = np.array(stamps) / 100

    def shown(rows: list[int]) -> list[int]:
        notes: list[str] = []
        images = clip_frames(Clip(file), times, 10, rows, "episode 0", notes.append)
        assert not notes
        return [identify(i)[1] for i in images]

    assert shown(list(range(10))) == list(range(10))
    for row in range(10):
        assert shown([row]) == [row]
    assert shown([2, 2, 9]) == [2, 2, 9] and shown([]) == []


def merge_wrongly(root: Path, **columns: Any) -> None:
    edit_table(root / "meta/episodes/chunk-000/file-000.parquet", **columns)


FROM, TO = (f"videos/observation.images.top/{n}_timestamp" for n in ("from", "to"))


def test_overlapping_ranges_of_one_video_are_found_and_skipped(tmp_path: Path) -> None:
    root = write_lerobot3(tmp_path / "d", (5, 8, 3, 4, 4, 4, 4, 4, 4, 4, 4)[:3])
    merge_wrongly(root, **{FROM: [0.0, 0.0, 1.3], TO: [0.5, 0.8, 1.6]})
    source = RobotSource(str(root), Mapping(size=32, image_format="ppm"))
    message = r"episodes 0 and 1 share frames of camera 'observation\.images\.top' from 0 to 0\.5 s"
    for index in (0, 1):
        with pytest.raises(DataError, match=message):
            source[index]
    assert frames_of(source, 2) == [0, 1, 2]
    assert any("2 damaged episodes (0-1)" in note for note in source.notes)
    settings = ["source.mapping.size=32"]
    with pytest.raises(DataError, match=message):  # before any episode is packed
        pack_from(root, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    manifest = pack_from(root, tmp_path / "out", settings, skip_bad=True, max_bad=0.7)
    assert manifest.samples == 1 and manifest.quarantined == 2


DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({FROM: [0.0, 0.5, 1.3], TO: [0.5, 1.3, 3.0]}, r"3 rows, but camera .* 17 rows at 10 Hz"),
    ({FROM: [0.0, 0.5, 2.3], TO: [0.5, 1.3, 2.6]}, r"the video has no frames there"),
    ({"length": [5, 8, 4]}, r"episode 2 has 3 rows, meta/ says 4"),
    (
        {"dataset_from_index": [0, 5, 12], "dataset_to_index": [5, 13, 15]},
        r"episodes 1 and 2 share rows from 12 to 13",
    ),
    (
        {"dataset_from_index": [0, 5, 13], "dataset_to_index": [5, 13, 17]},
        r"episode 2: length 3, but dataset indices 13 to 17",
    ),
]


@pytest.mark.parametrize(("columns", "message"), DAMAGED)
def test_descriptions_that_do_not_fit_make_their_episodes_bad(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    root = write_lerobot3(tmp_path / "d")
    merge_wrongly(root, **columns)
    source = RobotSource(str(root), Mapping(size=32, image_format="ppm"))
    assert frames_of(source, 0) == list(range(5))
    with pytest.raises((DataError, BadSample), match=message):
        source[2]


def test_an_episode_described_twice_is_bad(tmp_path: Path) -> None:
    root = write_lerobot3(tmp_path / "d")
    merge_wrongly(root, episode_index=[0, 1, 1])
    source = RobotSource(str(root), Mapping(size=32))
    with pytest.raises(DataError, match="episode 1 is described twice"):
        source[1]
    assert len(source[0].actions) == 5


@pytest.mark.parametrize("spoil", ["truncated", "empty", "text", "pointer", "no video"])
@pytest.mark.parametrize("episode", [0, 1, 2])
def test_damaged_videos_are_bad_episodes_wherever_they_are(
    spoil: str, episode: int, tmp_path: Path
) -> None:
    root = write_lerobot2(tmp_path / "d")
    file = top_video(root, episode)
    data = file.read_bytes()
    file.write_bytes(
        {
            "truncated": data[: len(data) // 2],
            "empty": b"",
            "text": b"not a video" * 99,
            "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "no video": data.replace(b"vide", b"soun"),
        }[spoil]
    )
    source = RobotSource(str(root), Mapping(size=32, image_format="ppm"))
    with pytest.raises(DataError, match="git lfs pull" if spoil == "pointer" else "damaged video"):
        source[episode]
    for other in {0, 1, 2} - {episode}:
        assert frames_of(source, other) == list(range(LENGTHS[other]))
