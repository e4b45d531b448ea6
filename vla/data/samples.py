"""The on-disk format: episodes and web samples as WebDataset samples, and back."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from vla.errors import BadSample
from vla.types import Episode, WebSample


def check_episode(episode: Episode, action_dim: int) -> None:
    """Refuse an episode that would harm training.

    Raises:
        BadSample: no instruction, no steps, no camera, a wrong number of action dimensions, NaN
            or infinite values, or a camera with another number of frames than steps.
    """
    where, steps = f"episode {episode.key!r}", len(episode.actions)
    if not episode.instruction.strip():
        raise BadSample(
            f"{where}: empty instruction; give the source an instruction field or template"
        )
    if steps == 0:
        raise BadSample(f"{where}: no steps; drop it from the source")
    if episode.actions.ndim != 2 or episode.actions.shape[1] != action_dim:
        raise BadSample(
            f"{where}: actions have shape {episode.actions.shape}, "
            f"expected ({steps}, {action_dim}); check the action fields"
        )
    for name in ("actions", "state", "rewards"):
        values = getattr(episode, name)
        if values is not None and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(1))[0, 0])
            raise BadSample(
                f"{where}: {name} has a NaN or infinite value at step {row}; "
                "repair or drop the episode"
            )
    if not episode.images:
        raise BadSample(f"{where}: no camera; name at least one")
    for camera, frames in episode.images.items():
        if len(frames) != steps:
            raise BadSample(
                f"{where}: camera {camera!r} has {len(frames)} frames for {steps} actions"
            )


def episode_to_sample(episode: Episode) -> dict[str, Any]:
    """``<key>.json``, ``<key>.steps.npz`` and one ``<key>.<camera>.mjpeg`` per camera, as bytes.

    A ``.mjpeg`` has all frames (JPEG or PPM) in sequence; the JSON has their byte offsets.
    """
    offsets = {
        c: np.cumsum([0] + [len(f) for f in frames]).tolist()
        for c, frames in episode.images.items()
    }
    meta = {
        "kind": "episode",
        "instruction": episode.instruction,
        "robot": episode.robot,
        "fps": episode.fps,
        "source": episode.source,
        "cameras": offsets,
        "plans": episode.plans,
        "alternatives": episode.alternatives,
        "alternative_plans": episode.alternative_plans,
        "info": episode.info,
    }
    optional = {
        "state": episode.state,
        "rewards": episode.rewards,
        "alternative_actions": episode.alternative_actions,
        "alternative_mask": episode.alternative_mask,
    }
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {k: v for k, v in optional.items() if v is not None}
    np.savez(buffer, actions=episode.actions, **arrays)
    sample: dict[str, Any] = {
        "__key__": episode.key,
        "json": json.dumps(meta, ensure_ascii=False).encode(),
        "steps.npz": buffer.getvalue(),
    }
    return sample | {f"{c}.mjpeg": b"".join(frames) for c, frames in episode.images.items()}


def web_to_sample(web: WebSample) -> dict[str, Any]:
    """``<key>.json`` and ``<key>.jpg`` as bytes."""
    meta = {"kind": "web", "qa": [asdict(q) for q in web.qa]}
    return {
        "__key__": web.key,
        "json": json.dumps(meta, ensure_ascii=False).encode(),
        "jpg": web.image,
    }


def read_json(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample's metadata.

    Raises:
        BadSample: it is missing or not JSON.
    """
    try:
        return json.loads(bytes(sample["json"]))
    except (KeyError, ValueError) as error:
        raise BadSample(
            f"sample {sample.get('__key__')!r}: unreadable .json ({error}); pack the data again"
        ) from error


def read_steps(sample: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of an episode, equal to those of ``numpy.load`` without pickle.

    Parsed headers are cached, because most episodes have the same ones.

    Raises:
        BadSample: missing, damaged, or with Python objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(sample["steps.npz"])) as arrays:
            return {
                name.removesuffix(".npy"): _array(arrays.read(name)) for name in arrays.namelist()
            }
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadSample(
            f"sample {sample.get('__key__')!r}: unreadable .steps.npz ({error}); "
            "pack the data again"
        ) from error


def _array(data: bytes) -> np.ndarray:
    begin = 10 + int.from_bytes(data[8:10], "little")
    if data[6:8] != b"\x01\x00":  # a long header, as no array of ours has
        return np.load(io.BytesIO(data), allow_pickle=False)
    shape, fortran, dtype = _layout(data[:begin])
    return (
        np.frombuffer(data, dtype, offset=begin)
        .reshape(shape, order="F" if fortran else "C")
        .copy()
    )


@lru_cache(maxsize=1024)
def _layout(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    file = io.BytesIO(header)
    np.lib.format.read_magic(file)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which is never unpickled")
    return shape, fortran, dtype


def read_frame(
    sample: dict[str, Any], meta: dict[str, Any], camera: str, step: int
) -> bytes | memoryview:
    """One encoded frame, as a view.

    Raises:
        BadSample: an unknown camera.
    """
    if camera not in meta["cameras"]:
        known = ", ".join(meta["cameras"])
        raise BadSample(
            f"sample {sample['__key__']!r}: unknown camera {camera!r}; this data has {known}"
        )
    offsets = meta["cameras"][camera]
    return sample[f"{camera}.mjpeg"][offsets[step] : offsets[step + 1]]
