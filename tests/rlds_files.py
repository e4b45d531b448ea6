"""RLDS data sets of any features, written by the package tfrecord."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Values = tuple[list[Any], str]


def tensor(dtype: str, *shape: int, encoding: str = "none") -> dict[str, Any]:
    about = {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype}
    return {"pythonClassName": "x.Tensor", "tensor": {**about, "encoding": encoding}}


def text() -> dict[str, Any]:
    return {"pythonClassName": "x.Text", "text": {}}


def image(*shape: int, dtype: str = "uint8") -> dict[str, Any]:
    about = {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype}
    return {"pythonClassName": "x.Image", "image": about}


def nest(parts: dict[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": parts}}


def write_features(
    root: Path, steps: dict[str, Any], episode: dict[str, Any] | None = None
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    parts = {"steps": {"pythonClassName": "x.Dataset", "sequence": {"feature": nest(steps)}}}
    if episode:
        parts["episode_metadata"] = nest(episode)
    (root / "features.json").write_text(json.dumps(nest(parts)))


def write_records(file: Path, episodes: list[dict[str, Values]]) -> None:
    """Each episode: feature -> (values, "float", "int" or "byte")."""
    import tfrecord

    writer = tfrecord.TFRecordWriter(str(file))
    for episode in episodes:
        writer.write(episode)
    writer.close()


def shot(episode: int, step: int, shape: tuple[int, ...] = (24, 32, 3)) -> np.ndarray:
    """An image that encodes its episode and step: ``seen`` reads them."""
    made = np.full(shape, 20 + 10 * (step % 23), np.uint8)
    made[: shape[0] // 2] = 20 + 30 * (episode % 7)
    made[:2, :2] = 255  # no image is of one colour
    return made


def seen(pixels: np.ndarray) -> tuple[int, int]:
    half = pixels.shape[0] // 2
    top, bottom = pixels[4 : half - 2].mean(), pixels[half + 2 :].mean()
    return round((top - 20) / 30), round((bottom - 20) / 10)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


STEPS = 6
FEATURES = {
    "action": tensor("float32", 2),
    "observation": nest({"image": image(24, 32, 3), "state": tensor("float32", 2)}),
}


def rlds_episode(number: int, steps: int = STEPS, **more: Any) -> dict[str, Any]:
    """The records of ``FEATURES``; ``more`` adds or replaces features by their last name."""
    values = [v for t in range(steps) for v in (number + 0.5, t / 10)]
    return {
        "steps/action": (values, "float"),
        "steps/observation/state": (values, "float"),
        "steps/observation/image": ([encoded(shot(number, t)) for t in range(steps)], "byte"),
        **more,
    }


def write_rlds_steps(
    root: Path,
    more: list[dict[str, Any]],
    steps: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    file: str = "toy-train.tfrecord-00000-of-00001",
) -> Path:
    write_features(root, FEATURES | (steps or {}), metadata)
    write_records(root / file, [rlds_episode(e, **m) for e, m in enumerate(more)])
    return root
