"""HDF5 demonstrations in the layouts of several projects, written by h5py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rlds_files import encoded, seen, shot

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.robot import RobotSource

STEPS = 6


def source(root: Path, **options: Any) -> RobotSource:
    return RobotSource(str(root), Mapping(size=24, fps=20, **options))


def frames(source: RobotSource, index: int, camera: str) -> list[tuple[int, int]]:
    return [seen(decode_image(f, "")) for f in source[index].images[camera]]


def actions(episode: int, dims: int = 7) -> np.ndarray:
    return episode + np.arange(STEPS * dims).reshape(STEPS, dims) / 100


def shots(episode: int, shape: tuple[int, ...] = (24, 32, 3)) -> np.ndarray:
    return np.array([shot(episode, t, shape) for t in range(STEPS)])


def write_demos(file: Path, columns: dict[str, Any], demos: tuple[int, ...] = (0, 1)) -> Path:
    """robomimic's layout; a column is an array, or a function of the demonstration's number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as root:
        for e in demos:
            demo = root.create_group(f"data/demo_{e}")
            demo["actions"] = actions(e)
            for name, values in columns.items():
                demo[name] = values(e) if callable(values) else values
    return file


def write_video(path: Path, images: np.ndarray) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=60)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
        stream.bit_rate = 4_000_000
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_droid(folder: Path, episode: int, frames: int = STEPS) -> Path:
    folder.mkdir(parents=True)
    with h5py.File(folder / "trajectory.h5", "w") as root:
        for name, width in (("cartesian_position", 6), ("gripper_position", 1)):
            values = actions(episode, width) if width > 1 else actions(episode, width)[:, 0]
            root[f"action/{name}"] = values
            root[f"observation/robot_state/{name}"] = values + 1
        root["observation/robot_state/joint_positions"] = actions(episode)
    serials = {"wrist_cam_serial": f"1{episode}", "ext1_cam_serial": f"2{episode}"}
    about = {"current_task": f"task {episode}", **serials}
    (folder / f"metadata_{episode}.json").write_text(json.dumps(about))
    for n, serial in enumerate(serials.values()):
        images = np.array([shot(n + 1, t, (64, 64, 3)) for t in range(frames)])
        write_video(folder / f"recordings/MP4/{serial}.mp4", images)
        (folder / f"recordings/MP4/{serial}-stereo.mp4").write_bytes(b"unused")
    return folder


def write_robotwin(root: Path, episode: int) -> None:
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "instructions").mkdir(exist_ok=True)
    with h5py.File(root / f"data/episode{episode}.hdf5", "w") as file:
        file["joint_action/vector"] = actions(episode, 14)
        file["joint_action/left_arm"] = actions(episode, 14)[:, :6]
        file["endpose/left_endpose"], file["endpose/left_gripper"] = actions(9), actions(9)[:, 0]
        codes = [encoded(s, "JPEG") for s in shots(episode)]
        file["observation/head_camera/rgb"] = np.array(codes, dtype=f"S{max(map(len, codes))}")
        file["observation/head_camera/intrinsic_cv"] = np.zeros((STEPS, 3, 3))
    texts = {"seen": [f"grab bottle {episode}", "another"], "unseen": ["other"]}
    (root / f"instructions/episode{episode}.json").write_text(json.dumps(texts))
