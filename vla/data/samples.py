"""The on-disk format: episodes and web samples as WebDataset samples, and back."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from vla.data.row_texts import expand, segments
from vla.errors import BadSample
from vla.types import Episode, WebSample

# Content of the JSON of each kind of sample.
_TYPES: dict[str, dict[str, Any]] = {
    "episode": {
        **dict.fromkeys(("key", "instruction", "robot", "source"), str),
        **dict.fromkeys(("instructions", "plans", "alternatives", "alternative_plans"), list),
        **dict.fromkeys(("cameras", "camera_files", "info"), dict),
        "fps": int | float,
    },
    "web": {"key": str, "qa": list},
}


def episode_to_sample(episode: Episode) -> dict[str, Any]:
    """``<key>.json``, ``<key>.steps.npz`` and one ``<key>.<camera>.mjpeg`` per camera, as bytes.

    A ``.mjpeg`` has all frames (JPEG or PPM) in sequence; the JSON has their byte offsets, the
    key of the episode, and the name of each camera's file where it differs from the camera's.
    Instructions that change are pairs of a first step and a text, see ``row_texts``.
    """
    files = camera_files(episode.images)
    offsets = {
        c: np.cumsum([0] + [len(f) for f in frames]).tolist()
        for c, frames in episode.images.items()
    }
    meta = {
        "kind": "episode",
        "key": episode.key,
        "camera_files": {c: name for c, name in files.items() if c != name},
        "instruction": episode.instruction,
        "instructions": segments(episode.instructions),
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
        "json": _json(meta),
        "steps.npz": buffer.getvalue(),
    }
    return sample | {f"{files[c]}.mjpeg": b"".join(frames) for c, frames in episode.images.items()}


def _json(meta: dict[str, Any]) -> bytes:
    """UTF-8; names of files with invalid bytes have lone surrogates, which JSON keeps."""
    return json.dumps(meta, ensure_ascii=False).encode("utf-8", "surrogatepass")


def camera_files(cameras: Iterable[str]) -> dict[str, str]:
    """Camera -> unique name for its file in a tar: short, lower case, without dots and slashes.

    WebDataset divides a file name at its first dot, ignores case, and leaves out parts that begin
    with ``_``.
    """
    found: dict[str, str] = {}
    for number, camera in enumerate(sorted(cameras)):
        name = re.sub(r"[^a-z0-9_-]", "_", camera.lower())[:40].lstrip("_") or "camera"
        unclear = name != camera
        while unclear or name in found.values():
            name, unclear = f"{name}-{number}", False
        found[camera] = name
    return found


def web_to_sample(web: WebSample) -> dict[str, Any]:
    """``<key>.json`` and ``<key>.jpg`` as bytes; optional fields of a question only if set."""
    always = ("question", "answer", "tests", "needs_image")
    unset: tuple[Any, ...] = ([], "words")
    qa = [{k: v for k, v in asdict(q).items() if k in always or v not in unset} for q in web.qa]
    meta = {"kind": "web", "key": web.key, "qa": qa}
    return {
        "__key__": web.key,
        "json": _json(meta),
        "jpg": web.image,
    }


def read_json(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample's metadata.

    Raises:
        BadSample: it is missing, not JSON, or lacks what packing writes.
    """
    try:
        meta: dict[str, Any] = json.loads(bytes(sample["json"]))
        for name, kind in _TYPES[meta["kind"]].items():
            if not isinstance(meta[name], kind):
                raise ValueError(f"{name} is {type(meta[name]).__name__}")
        return meta
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadSample(
            f"sample {sample.get('__key__')!r}: unreadable .json ({error}); pack the data again"
        ) from error


def read_instructions(meta: dict[str, Any], steps: int) -> list[str]:
    """The instruction of every step; an empty text where a step has none.

    Raises:
        BadSample: the recorded segments do not fit the number of steps.
    """
    try:
        return (
            expand(meta["instructions"], steps)
            if meta["instructions"]
            else [meta["instruction"]] * steps
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadSample(f"instructions of a sample: {error}; pack the data again") from error


def read_steps(sample: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of an episode, equal to those of ``numpy.load`` without pickle.

    Parsed headers are cached, because most episodes have the same ones. Packing does not compress
    arrays, so they need no more memory than the sample.

    Raises:
        BadSample: missing, damaged, compressed, or with Python objects.
    """
    try:
        data = sample["steps.npz"]
        with zipfile.ZipFile(io.BytesIO(data)) as arrays:
            members = arrays.infolist()
            if sum(m.file_size for m in members) > len(data) or any(
                m.compress_type for m in members
            ):
                raise ValueError("its arrays are larger than the file")
            return {m.filename.removesuffix(".npy"): _array(arrays.read(m)) for m in members}
    except (KeyError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise BadSample(
            f"sample {sample.get('__key__')!r}: unreadable .steps.npz ({error}); "
            "pack the data again"
        ) from error


def _array(data: bytes) -> np.ndarray:
    begin = 10 + int.from_bytes(data[8:10], "little")
    if data[6:8] != b"\x01\x00":  # a long header, as no array of ours has
        raise ValueError("an array with an unknown header")
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
    file = meta["camera_files"].get(camera, camera)
    return sample[f"{file}.mjpeg"][offsets[step] : offsets[step + 1]]
