"""MCAP files and ROS 2 bags: messages at times become rows at a chosen rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_files import STAMP, Sent, image, joints, write_json_mcap, write_mcap, write_sqlite
from rlds_files import encoded, seen, shot

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.readers import open_reader
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError

JPEG, RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
JOINTS, ARRAY = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray"
TEXT, TWIST = "std_msgs/msg/String", "geometry_msgs/msg/Twist"
PACK = ["source.mapping.fps=5", "source.mapping.size=24"]


def array(*values: float) -> dict[str, Any]:
    return {"layout": {"dim": [], "data_offset": 0}, "data": [float(v) for v in values]}


def compressed(pixels: np.ndarray) -> dict[str, Any]:
    return {"header": STAMP, "format": "jpeg", "data": encoded(pixels, "JPEG")}


def recording(episode: int = 0, seconds: float = 2.0, text: str = "pour") -> list[Sent]:
    """Joints at 50 Hz, commands at 20 Hz, images at 10 Hz whose number is their time in 0.1 s."""
    sent: list[Sent] = [(0.0, "/instruction", TEXT, {"data": text})]
    for n in range(int(seconds * 50)):
        sent.append((n / 50, "/joint_states", JOINTS, joints(a=n / 50 + episode, b=-n / 50)))
    for n in range(int(seconds * 20)):
        sent.append((n / 20, "/arm/command", ARRAY, array(n / 20, episode)))
    for n in range(int(seconds * 10)):
        picture = compressed(shot(episode, n))
        sent.append((n / 10 + 0.001, "/wrist/image_raw/compressed", JPEG, picture))
    return sent


def source(path: Path, fps: float = 5, **options: Any) -> RobotSource:
    return RobotSource(str(path), Mapping(size=24, fps=fps, **options))


def frames(source: RobotSource, index: int, camera: str) -> list[tuple[int, int]]:
    return [seen(decode_image(f, "")) for f in source[index].images[camera]]


WRITERS: dict[str, Any] = {
    "mcap": lambda p, sent: write_mcap(p / "a.mcap", sent),
    "json": lambda p, sent: write_json_mcap(p / "a.mcap", sent),
    "sqlite": lambda p, sent: write_sqlite(p / "bag", sent),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_rows_have_the_latest_message_until_their_time(kind: str, tmp_path: Path) -> None:
    found = source(WRITERS[kind](tmp_path, recording(episode=2)))
    episode = found[0]
    assert episode.instruction == "pour" and episode.fps == 5
    # From the first image at 0.001 s to the last one at 1.901 s: ten rows, 0.2 s apart.
    times = 0.001 + np.arange(10) / 5
    assert np.allclose(episode.actions[:, 0], np.floor(times * 20 + 1e-6) / 20)
    assert np.allclose(episode.actions[:, 1], 2)
    state = episode.state
    assert state is not None and np.allclose(state[:, 0], 2 + np.floor(times * 50 + 1e-6) / 50)
    assert list(found.state_names) == ["a", "b"]
    assert frames(found, 0, "wrist") == [(2, 2 * t) for t in range(10)]
    assert any("latest message until then" in note for note in found.notes)


def test_a_folder_of_bags_is_a_data_set_in_natural_order(tmp_path: Path) -> None:
    for n in (10, 9, 1):
        write_mcap(tmp_path / f"run_{n}.mcap", recording(n, text=f"task {n}"))
    found = source(tmp_path)
    assert [found[e].instruction for e in range(3)] == ["task 1", "task 9", "task 10"]
    packed = pack_from(tmp_path, tmp_path / "out", PACK)
    assert packed.samples == 3 and packed.steps == 30


def test_split_files_of_one_bag_are_one_episode(tmp_path: Path) -> None:
    sent = recording(seconds=4)
    write_mcap(tmp_path / "bag/bag_0.mcap", [s for s in sent if s[0] < 2])
    write_mcap(tmp_path / "bag/bag_1.mcap", [s for s in sent if s[0] >= 2])
    (tmp_path / "bag/metadata.yaml").write_text(
        "rosbag2_bagfile_information:\n  version: 9\n  storage_identifier: mcap\n"
        "  custom_data: {instruction: stack}\n"
    )
    found = source(tmp_path)
    assert len(found) == 1 and len(found[0].actions) == 20
    assert frames(found, 0, "wrist")[19] == (0, 38 % 23)


def test_the_rate_must_be_given(tmp_path: Path) -> None:
    write_mcap(tmp_path / "a.mcap", recording())
    with pytest.raises(DataError, match=r"source\.mapping\.fps"):
        RobotSource(str(tmp_path), Mapping())


@pytest.mark.parametrize(
    ("encoding", "padding"), [("rgb8", 0), ("bgr8", 5), ("rgba8", 0), ("bgra8", 3), ("mono8", 7)]
)
def test_raw_images_of_every_encoding(encoding: str, padding: int, tmp_path: Path) -> None:
    def pixels(n: int) -> np.ndarray:
        made = shot(1, n)
        made[..., 0] = np.minimum(made[..., 0] + 9.0, 255)  # red differs
        if "bgr" in encoding:
            made = made[..., ::-1]
        if encoding.endswith("a8"):
            made = np.concatenate([made, np.full((*made.shape[:2], 1), 9, np.uint8)], 2)
        return made[..., 0] if encoding == "mono8" else made

    sent: list[Sent] = [s for s in recording() if "wrist" not in s[1]]
    sent += [(n / 10, "/cam", RAW, image(pixels(n), encoding, padding)) for n in range(20)]
    reader = open_reader(write_mcap(tmp_path / "a.mcap", sent))
    reader.choose_rows(10, ["cam"])
    got = list(reader[0].frames["cam"]([0, 7]))
    assert [g.shape for g in got] == [(24, 32, 3)] * 2
    if encoding != "mono8":
        expected = shot(1, 7).astype(int)
        assert (got[1][4:, :, 1:] == expected[4:, :, 1:]).all()
        assert (got[1][4:, :, 0] == expected[4:, :, 0] + 9).all()


def test_depth_is_no_default_camera_and_unknown_encodings_matter_only_if_used(
    tmp_path: Path,
) -> None:
    sent = recording()
    deep = np.full((24, 32), 800, np.uint16)
    sent += [(n / 10, "/depth/image", RAW, image(deep, "16UC1")) for n in range(20)]
    bayer = image(np.zeros((24, 32), np.uint8), "bayer_rggb8")
    sent += [(n / 10, "/bayer/image", RAW, bayer) for n in range(20)]
    sent += [(n / 10, "/points", "sensor_msgs/msg/PointCloud2", {"data": b"123"}) for n in (0, 1)]
    path = write_mcap(tmp_path / "a.mcap", sent)
    assert list(source(path)[0].images) == ["wrist"]
    assert open_reader(path).fields["depth/image"].depth
    with pytest.raises(DataError, match=r"/bayer/image: encoding 'bayer_rggb8' is not read"):
        source(path, cameras={"b": "bayer/image"})
    with pytest.raises(DataError, match=r"/points: messages of type .*PointCloud2 are not read"):
        source(path, state=["points"])


def test_an_instruction_that_changes_holds_from_its_message_on(tmp_path: Path) -> None:
    sent = [*recording(), (1.0, "/instruction", TEXT, {"data": "stop"})]
    found = source(write_mcap(tmp_path / "a.mcap", sent))
    assert found[0].instructions == ["pour"] * 5 + ["stop"] * 5


def test_an_instruction_in_the_metadata_of_the_file(tmp_path: Path) -> None:
    sent = [s for s in recording() if s[1] != "/instruction"]
    found = source(write_mcap(tmp_path / "a.mcap", sent, Instruction="wipe the desk"))
    assert found[0].instruction == "wipe the desk"


def test_joints_of_separate_messages_are_put_together_by_name(tmp_path: Path) -> None:
    sent = [s for s in recording() if s[1] != "/joint_states"]
    for n in range(100):
        sent.append((n / 50, "/joint_states", JOINTS, joints(b=n, a=-n)))
        sent.append((n / 50 + 0.0004, "/joint_states", JOINTS, joints(grip=n / 100)))
    found = source(write_mcap(tmp_path / "a.mcap", sent))
    state = found[0].state
    assert list(found.state_names) == ["b", "a", "grip"] and state is not None
    assert np.allclose(state[3], [30, -30, 0.3])


def test_rows_begin_when_every_used_topic_has_a_value(tmp_path: Path) -> None:
    sent = [s for s in recording() if s[1] != "/arm/command" or s[0] >= 0.5]
    sent += [(1.2, "/late", "std_msgs/msg/Float64", {"data": 3.0})]
    path = write_mcap(tmp_path / "a.mcap", sent)
    found = source(path)
    assert found[0].actions[0, 0] == 0.5
    assert frames(found, 0, "wrist")[0] == (0, 4)
    late = source(path, state=["late"])[0]
    assert late.state is not None and (late.state == 3.0).all() and len(late.state) == 4


def test_a_twist_is_named_by_its_parts(tmp_path: Path) -> None:
    sent = [s for s in recording() if s[1] != "/arm/command"]
    parts = {"linear": {"x": 0.5, "y": 0.0, "z": 0.0}, "angular": {"x": 0.0, "y": 0.0, "z": -1.0}}
    sent += [(n / 20, "/cmd_vel", TWIST, parts) for n in range(40)]
    found = source(write_mcap(tmp_path / "a.mcap", sent))
    assert found.action_space is not None
    assert found.action_space.names == tuple(
        f"{p}.{a}" for p in ("linear", "angular") for a in "xyz"
    )
    assert np.allclose(found[0].actions[0], [0.5, 0, 0, 0, 0, -1])


def test_gaps_and_slow_topics_are_said(tmp_path: Path) -> None:
    sent = [s for s in recording(seconds=4) if "wrist" not in s[1] or not 1.05 < s[0] < 2.85]
    found = source(write_mcap(tmp_path / "a.mcap", sent), fps=20)
    notes = " ".join(found.notes)
    assert "/wrist/image_raw/compressed has no messages for 1.9 s after 1.0 s" in notes
    assert "/wrist/image_raw/compressed has 10 messages a second, fewer than rows (20)" in notes
    assert "/joint_states has" not in notes


def test_messages_of_other_widths_are_bad_episodes(tmp_path: Path) -> None:
    sent = [*recording(), (1.01, "/arm/command", ARRAY, array(1, 2, 3))]
    found = source(write_mcap(tmp_path / "a.mcap", sent))
    with pytest.raises(DataError, match=r"/arm/command: 3 numbers in the message at 1\.01 s"):
        found[0]


@pytest.mark.parametrize("how", ["truncated", "damaged", "empty"])
def test_a_damaged_bag_is_one_bad_episode(how: str, tmp_path: Path) -> None:
    for n in range(3):
        write_mcap(tmp_path / f"{n}.mcap", recording(n))
    file = tmp_path / "0.mcap"
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 400] = bytes(400)
    cut = {"truncated": whole[: len(whole) // 2], "damaged": whole, "empty": b""}[how]
    file.write_bytes(bytes(cut))
    found = source(tmp_path)
    assert len(found) == 3 and any("0.mcap: damaged" in n for n in found.notes)
    with pytest.raises(BadSample, match=r"0\.mcap: damaged or unfinished MCAP file"):
        pack_from(tmp_path, tmp_path / "a", PACK)
    packed = pack_from(tmp_path, tmp_path / "b", PACK, skip_bad=True, max_bad=0.5)
    assert packed.samples == 2 and packed.quarantined == 1


def test_other_encodings_are_said(tmp_path: Path) -> None:
    from mcap.writer import Writer

    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("foxglove.PoseInFrame", "protobuf", b"")
        channel = writer.register_channel("/pose", "protobuf", schema)
        writer.add_message(channel, 0, b"12", 0)
        writer.finish()
    with pytest.raises(DataError, match=r"messages in protobuf .* are not read; record or convert"):
        source(path, action=["pose"])
