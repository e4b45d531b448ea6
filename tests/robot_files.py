"""Robot data sets in every format, written by the formats' own libraries; frame and episode numbers are readable in every picture."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LENGTHS = (5, 8, 3)
TASKS = ("push the red block", "öffne die Schublade")
NAMES = ["x", "y", "grip"]


def picture(episode: int, step: int, camera: int = 0, size: int = 32) -> np.ndarray:
    """Grey levels that say where the picture is from."""
    image = np.full((size, size, 3), 100 * camera + 50, np.uint8)
    image[: size // 2, : size // 2] = 40 + 40 * episode
    image[size // 2 :, : size // 2] = 20 + 20 * step
    return image


def says(image: np.ndarray) -> tuple[int, int, int]:
    """(episode, step, camera) read back."""
    h, w = image.shape[0] // 2, image.shape[1] // 2
    return (
        round((image[2 : h - 2, 2 : w - 2].mean() - 40) / 40),
        round((image[h + 2 : -2, 2 : w - 2].mean() - 20) / 20),
        round((image[:, w + 2 :].mean() - 50) / 100),
    )


def action(episode: int, step: int) -> list[float]:
    return [episode + 0.5, step / 10, float(step % 2)]


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_video(path: Path, images: list[np.ndarray], fps: int = 10) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = images[0].shape[1], images[0].shape[0], "yuv420p", 4_000_000
        for image in images:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _table(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _columns(episode: int, length: int, first: int, image_mode: bool) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "observation.state": [[*action(episode, t)[:2], 0.0] for t in range(length)],
        "action": [action(episode, t) for t in range(length)],
        "timestamp": [np.float32(t / 10) for t in range(length)],
        "frame_index": list(range(length)),
        "episode_index": [episode] * length,
        "index": list(range(first, first + length)),
        "task_index": [episode % 2] * length,
    }
    if image_mode:
        for c, name in enumerate(("top", "wrist")):
            columns[f"observation.images.{name}"] = [{"bytes": png(picture(episode, t, c)), "path": None} for t in range(length)]
    return columns


def write_lerobot2(root: Path, version: str = "v2.1", lengths: tuple[int, ...] = LENGTHS) -> Path:
    """LeRobot 2 in video mode, two cameras."""
    info = {
        "codebase_version": version, "robot_type": "arm", "fps": 10, "chunks_size": 2, "total_episodes": len(lengths),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": _features("video"),
    }  # fmt: skip
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps({"task_index": n, "task": t}) + "\n" for n, t in enumerate(TASKS)))
    rows = [{"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in enumerate(lengths)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in reversed(rows)))  # unsorted on purpose
    first = 0
    for e, n in enumerate(lengths):
        place = {"episode_index": e, "episode_chunk": e // 2}
        _table(root / info["data_path"].format(**place), _columns(e, n, first, False))
        for c, name in enumerate(("top", "wrist")):
            file = root / info["video_path"].format(video_key=f"observation.images.{name}", **place)
            write_video(file, [picture(e, t, c) for t in range(n)])
        first += n
    return root


def _features(kind: str) -> dict[str, Any]:
    images = {
        f"observation.images.{c}": {"dtype": kind, "shape": [32, 32, 3], "names": ["height", "width", "channels"]}
        for c in ("top", "wrist")
    }
    numbers = {k: {"dtype": "float32", "shape": [3], "names": {"motors": NAMES}} for k in ("observation.state", "action")}
    books = {k: {"dtype": "int64", "shape": [1], "names": None} for k in ("frame_index", "episode_index", "index", "task_index")}
    return images | numbers | books | {"timestamp": {"dtype": "float32", "shape": [1], "names": None}}


def write_lerobot3(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """LeRobot 3 in video mode: all rows in one table; the top camera in one file, the wrist camera in a file an episode."""
    info = {
        "codebase_version": "v3.0", "robot_type": "arm", "fps": 10, "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4", "features": _features("video"),
    }  # fmt: skip
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    _table(root / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": list(TASKS)})
    firsts = [sum(lengths[:e]) for e in range(len(lengths))]
    merged: dict[str, list[Any]] = {}
    rows = []
    for e, n in enumerate(lengths):
        for key, values in _columns(e, n, firsts[e], False).items():
            merged.setdefault(key, []).extend(values)
        row: dict[str, Any] = {
            "episode_index": e,
            "tasks": [TASKS[e % 2]],
            "length": n,
            "data/chunk_index": 0,
            "data/file_index": 0,
        }
        for name, file, start in (("top", 0, firsts[e] / 10), ("wrist", e, 0.0)):
            key = f"videos/observation.images.{name}"
            row |= {
                f"{key}/chunk_index": 0,
                f"{key}/file_index": file,
                f"{key}/from_timestamp": start,
                f"{key}/to_timestamp": start + n / 10,
            }
        rows.append(row)
        write_video(root / f"videos/observation.images.wrist/chunk-000/file-{e:03d}.mp4", [picture(e, t, 1) for t in range(n)])
    write_video(
        root / "videos/observation.images.top/chunk-000/file-000.mp4",
        [picture(e, t, 0) for e, n in enumerate(lengths) for t in range(n)],
    )
    _table(root / "data/chunk-000/file-000.parquet", merged)
    _table(root / "meta/episodes/chunk-000/file-000.parquet", {k: [r[k] for r in rows] for k in rows[0]})
    return root


def write_rlds(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """RLDS by the ``tfrecord`` package."""
    import tfrecord

    root.mkdir(parents=True)
    tensor = {"pythonClassName": "x.Tensor", "tensor": {"shape": {"dimensions": ["3"]}, "dtype": "float32"}}
    scalar = {"pythonClassName": "x.Scalar", "tensor": {"shape": {}, "dtype": "bool"}}
    image = {"pythonClassName": "x.Image", "image": {"shape": {"dimensions": ["32", "32", "3"]}}}
    inside = {"image_0": image, "image_1": image, "state": tensor}
    steps = {
        "action": tensor, "is_first": scalar, "language_instruction": {"pythonClassName": "x.Text", "text": {}},
        "observation": {"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": inside}},
    }  # fmt: skip
    features = {"featuresDict": {"features": {"steps": {"sequence": {"feature": {"featuresDict": {"features": steps}}}}}}}
    (root / "features.json").write_text(json.dumps(features))
    (root / "dataset_info.json").write_text(json.dumps({"name": "toy"}))
    writer = tfrecord.TFRecordWriter(str(root / "toy-train.tfrecord-00000-of-00001"))
    blank = png(np.zeros((32, 32, 3), np.uint8))
    for e, n in enumerate(lengths):
        writer.write({
            "steps/action": ([v for t in range(n) for v in action(e, t)], "float"),
            "steps/observation/state": ([v for t in range(n) for v in action(e, t)], "float"),
            "steps/is_first": ([int(t == 0) for t in range(n)], "int"),
            "steps/language_instruction": ([TASKS[e % 2].encode()] * n, "byte"),
            "steps/observation/image_0": ([png(picture(e, t)) for t in range(n)], "byte"),
            "steps/observation/image_1": ([blank] * n, "byte"),
        })  # fmt: skip
    writer.close()
    return root


def write_robomimic(file: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """robomimic's layout with LIBERO's instruction, by h5py."""
    import h5py

    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as root:
        data = root.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": [TASKS[0]]})
        for e, n in enumerate(lengths):
            demo = data.create_group(f"demo_{e}")
            demo.attrs["num_samples"] = n
            demo["actions"] = np.array([action(e, t) for t in range(n)])
            demo["obs/agentview_image"] = np.array([picture(e, t) for t in range(n)])
            demo["obs/state"] = np.array([action(e, t) for t in range(n)])
            demo["next_obs/agentview_image"] = np.zeros((n, 32, 32, 3), np.uint8)
    return file


def write_aloha(folder: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """ALOHA's layout with compressed pictures, one file an episode."""
    import h5py

    folder.mkdir(parents=True)
    for e, n in enumerate(lengths):
        with h5py.File(folder / f"episode_{e}.hdf5", "w") as root:
            root.attrs["compress"] = True
            root.attrs["task"] = TASKS[0]
            root["action"] = np.array([action(e, t) for t in range(n)])
            root["observations/qpos"] = np.array([action(e, t) for t in range(n)])
            codes = [png(picture(e, t)) for t in range(n)]
            width = max(map(len, codes))
            root["observations/images/top"] = np.array([np.frombuffer(c.ljust(width, b"\0"), np.uint8) for c in codes])
    return folder


def write_folder(root: Path, lengths: tuple[int, ...] = LENGTHS, table: str = "csv") -> Path:
    """The plain folder."""
    for e, n in enumerate(lengths):
        episode = root / f"épisode {e}"
        (episode / "top").mkdir(parents=True)
        for t in range(n):
            Image.fromarray(picture(e, t)).save(episode / "top" / f"{t:04d}.png")
        (episode / "instruction.txt").write_text(TASKS[e % 2], encoding="utf-8")
        rows = [{"action": action(e, t), "state": action(e, t), "subtask": f"step {t}"} for t in range(n)]
        if table == "json":
            (episode / "steps.json").write_text(json.dumps(rows))
        elif table == "npz":
            np.savez(
                episode / "steps.npz", action=np.array([r["action"] for r in rows]), state=np.array([r["state"] for r in rows])
            )
        else:
            head = [f"action.{n}" for n in NAMES] + [f"state.{n}" for n in NAMES] + ["subtask"]
            lines = [",".join(map(str, [*r["action"], *r["state"], r["subtask"]])) for r in rows]
            (episode / "steps.csv").write_text("\n".join([",".join(head), *lines]), encoding="utf-8")
    (root / "meta.json").write_text(json.dumps({"fps": 10, "robot": "arm"}))
    return root
