"""The small robot data set of ``robot_files`` as zarr, CALVIN's npz files, and MCAP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from bag_files import STAMP, Sent, write_mcap
from robot_files import LENGTHS, NAMES, TASKS, action, image_of, png


def write_zarr(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """A replay buffer of zarr 2 with checksums, three rows per chunk."""
    import numcodecs
    import zarr

    rows = [(e, t) for e, n in enumerate(lengths) for t in range(n)]
    numbers = np.array([action(e, t) for e, t in rows])
    images = np.array([image_of(e, t) for e, t in rows])
    group = zarr.open_group(str(root / "a.zarr"), mode="w", zarr_format=2)
    arrays = {"data/img": images, "data/action": numbers, "data/state": numbers}
    arrays["meta/episode_ends"] = np.cumsum(lengths)
    arrays["meta/instruction"] = np.array([TASKS[e % 2] for e in range(len(lengths))])
    for name, values in arrays.items():
        group.create_array(
            name,
            data=values,
            chunks=(3, *values.shape[1:]),
            compressors=numcodecs.Zstd(checksum=True),
        )
    return root


def write_calvin(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """One npz file per row, and annotations of every episode."""
    (root / "lang_annotations").mkdir(parents=True)
    ends = np.cumsum(lengths)
    spans = [[int(b - n), int(b - 1)] for n, b in zip(lengths, ends, strict=True)]
    for e, (first, _) in enumerate(spans):
        for t in range(lengths[e]):
            values = {"rel_actions": action(e, t), "robot_obs": action(e, t)}
            file = root / f"episode_{first + t:07d}.npz"
            np.savez(file, **{k: np.array(v) for k, v in values.items()}, rgb_static=image_of(e, t))
    np.save(root / "ep_start_end_ids.npy", np.array(spans))
    about = {"language": [TASKS[e % 2] for e in range(len(lengths))], "indx": spans}
    (root / "lang_annotations" / "auto_lang_ann.json").write_text(json.dumps(about))
    return root


def write_bags(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """One MCAP file per episode with ten messages a second of each topic."""
    for e, n in enumerate(lengths):
        sent: list[Sent] = [(0.0, "/task", "std_msgs/msg/String", {"data": TASKS[e % 2]})]
        for t in range(n):
            values = action(e, t)
            picture = {"header": STAMP, "format": "png", "data": png(image_of(e, t))}
            joints = {"header": STAMP, "name": NAMES, "position": values}
            joints |= {"velocity": [], "effort": []}
            array = {"layout": {"dim": [], "data_offset": 0}, "data": values}
            sent += [
                (t / 10, "/top/image_raw/compressed", "sensor_msgs/msg/CompressedImage", picture),
                (t / 10, "/joint_states", "sensor_msgs/msg/JointState", joints),
                (t / 10, "/command", "std_msgs/msg/Float64MultiArray", array),
            ]
        write_mcap(root / f"run_{e}.mcap", sent)
    return root
