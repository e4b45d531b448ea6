"""Small robot data sets in every format, written by the formats' own libraries.

The episode, step and camera of each image are encoded in its grey levels.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

LENGTHS = (5, 8, 3)
TASKS = ("push the red block", "öffne die Schublade")
NAMES = ["x", "y", "grip"]


def image_of(episode: int, step: int, camera: int = 0, size: int = 32) -> np.ndarray:
    """An image that encodes its episode, step and camera in grey levels."""
    image = np.full((size, size, 3), 100 * camera + 50, np.uint8)
    image[: size // 2, : size // 2] = 40 + 40 * episode
    image[size // 2 :, : size // 2] = 20 + 20 * step
    return image


def identify(image: np.ndarray) -> tuple[int, int, int]:
    """(episode, step, camera) of an image made by ``image_of``."""
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


def write_rlds(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """RLDS, written by the package tfrecord."""
    import tfrecord

    root.mkdir(parents=True)
    tensor = {
        "pythonClassName": "x.Tensor",
        "tensor": {"shape": {"dimensions": ["3"]}, "dtype": "float32"},
    }
    scalar = {"pythonClassName": "x.Scalar", "tensor": {"shape": {}, "dtype": "bool"}}
    image = {"pythonClassName": "x.Image", "image": {"shape": {"dimensions": ["32", "32", "3"]}}}
    inside = {"image_0": image, "image_1": image, "state": tensor}
    steps = {
        "action": tensor,
        "is_first": scalar,
        "language_instruction": {"pythonClassName": "x.Text", "text": {}},
        "observation": {"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": inside}},
    }
    features = {
        "featuresDict": {
            "features": {"steps": {"sequence": {"feature": {"featuresDict": {"features": steps}}}}}
        }
    }
    (root / "features.json").write_text(json.dumps(features))
    (root / "dataset_info.json").write_text(json.dumps({"name": "toy"}))
    constraint = tfrecord.TFRecordWriter(str(root / "toy-train.tfrecord-00000-of-00001"))
    blank = png(np.zeros((32, 32, 3), np.uint8))
    for e, n in enumerate(lengths):
        constraint.write(
            {
                "steps/action": ([v for t in range(n) for v in action(e, t)], "float"),
                "steps/observation/state": ([v for t in range(n) for v in action(e, t)], "float"),
                "steps/is_first": ([int(t == 0) for t in range(n)], "int"),
                "steps/language_instruction": ([TASKS[e % 2].encode()] * n, "byte"),
                "steps/observation/image_0": ([png(image_of(e, t)) for t in range(n)], "byte"),
                "steps/observation/image_1": ([blank] * n, "byte"),
            }
        )
    constraint.close()
    return root


def write_robomimic(file: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """HDF5 in robomimic's layout with LIBERO's instruction."""
    import h5py

    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as root:
        data = root.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": [TASKS[0]]})
        for e, n in enumerate(lengths):
            demo = data.create_group(f"demo_{e}")
            demo.attrs["num_samples"] = n
            demo["actions"] = np.array([action(e, t) for t in range(n)])
            demo["obs/agentview_image"] = np.array([image_of(e, t) for t in range(n)])
            demo["obs/state"] = np.array([action(e, t) for t in range(n)])
            demo["next_obs/agentview_image"] = np.zeros((n, 32, 32, 3), np.uint8)
    return file


def write_aloha(folder: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """HDF5 in ALOHA's layout: compressed images, one file per episode."""
    import h5py

    folder.mkdir(parents=True)
    for e, n in enumerate(lengths):
        with h5py.File(folder / f"episode_{e}.hdf5", "w") as root:
            root.attrs["compress"] = True
            root.attrs["task"] = TASKS[0]
            root["action"] = np.array([action(e, t) for t in range(n)])
            root["observations/qpos"] = np.array([action(e, t) for t in range(n)])
            codes = [png(image_of(e, t)) for t in range(n)]
            width = max(map(len, codes))
            root["observations/images/top"] = np.array(
                [np.frombuffer(c.ljust(width, b"\0"), np.uint8) for c in codes]
            )
    return folder


def write_folder(root: Path, lengths: tuple[int, ...] = LENGTHS, table: str = "csv") -> Path:
    """The plain folder format."""
    for e, n in enumerate(lengths):
        episode = root / f"épisode {e}"
        (episode / "top").mkdir(parents=True)
        for t in range(n):
            Image.fromarray(image_of(e, t)).save(episode / "top" / f"{t:04d}.png")
        (episode / "instruction.txt").write_text(TASKS[e % 2], encoding="utf-8")
        rows = [
            {"action": action(e, t), "state": action(e, t), "subtask": f"step {t}"}
            for t in range(n)
        ]
        if table == "json":
            (episode / "steps.json").write_text(json.dumps(rows))
        elif table == "npz":
            np.savez(
                episode / "steps.npz",
                action=np.array([r["action"] for r in rows]),
                state=np.array([r["state"] for r in rows]),
            )
        else:
            head = [f"action.{n}" for n in NAMES] + [f"state.{n}" for n in NAMES] + ["subtask"]
            lines = [",".join(map(str, [*r["action"], *r["state"], r["subtask"]])) for r in rows]
            (episode / "steps.csv").write_text(
                "\n".join([",".join(head), *lines]), encoding="utf-8"
            )
    (root / "meta.json").write_text(json.dumps({"fps": 10, "robot": "arm"}))
    return root
