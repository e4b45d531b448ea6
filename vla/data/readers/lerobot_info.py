"""``meta/info.json`` of LeRobot data sets, also with the gaps that converters leave."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

from vla.data.readers.base import Field, names_of
from vla.data.readers.files import read_json_file
from vla.data.readers.pixels import is_depth
from vla.errors import DataError

_DEFAULTS = {  # major version -> templates of its writer
    2: {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
    },
    3: {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
}
_PLACES = ("episode_index", "episode_chunk", "chunk_index", "file_index", "video_key")
_VALIDATION = ("val", "validation", "valid", "eval", "dev")


@dataclass(frozen=True)
class Info:
    """What ``meta/info.json`` says."""

    root: Path
    version: int  # 2 or 3
    robot: str
    fps: float  # rows per second; 0: not recorded
    chunks_size: int
    features: dict[str, dict[str, Any]]
    templates: dict[str, str]  # "data_path", "video_path"
    splits: dict[str, list[tuple[int, int]]]  # "train", "val", ... -> ranges of episode indices
    notes: list[str] = field(default_factory=list)
    episodes: int = 0  # total_episodes; 0: not recorded

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.root / "meta/info.json"

    def file(self, template: str, **values: Any) -> Path:
        """A file of the data set; ``values`` are the template's fields."""
        return self.root / self.templates[template].format(**values)

    def split(self, episode: int) -> str:
        """The recorded split of an episode; empty: not recorded."""
        found = (n for n, parts in self.splits.items() if any(a <= episode < b for a, b in parts))
        return next(found, "")


def read_info(root: Path) -> Info:
    """Read ``meta/info.json``; absent keys have the values of LeRobot's own writer.

    Raises:
        DataError: the file is missing or damaged, or it has an unknown version or template.
    """
    path = root / "meta/info.json"
    data, notes = read_json_file(path), list[str]()
    version = _version(data.get("codebase_version"), root)
    features = data.get("features")
    if not isinstance(features, dict) or not all(isinstance(f, dict) for f in features.values()):
        raise DataError(f"{path}: features: expected an object of objects; download it again")
    fps = _number(data.get("fps"))
    chunks = int(_number(data.get("chunks_size"))) or 1000
    templates = {
        key: _template(path, key, data.get(key) or default)
        for key, default in _DEFAULTS[version].items()
    }
    splits = _splits(data.get("splits"), notes)
    robot = str(data.get("robot_type") or "")
    total = int(_number(data.get("total_episodes")))
    return Info(root, version, robot, fps, chunks, features, templates, splits, notes, total)


def _version(value: Any, root: Path) -> int:
    if value is None:
        return 3 if (root / "meta/episodes").is_dir() else 2
    match = re.fullmatch(r"v?(2\.[01]|3\.0)", str(value).strip())
    if not match:
        raise DataError(
            f"{root / 'meta/info.json'}: codebase_version {value!r}; "
            "this program reads v2.0, v2.1 and v3.0"
        )
    return int(match[1][0])


def _number(value: Any) -> float:
    """A positive finite number, also as text; else 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def _template(path: Path, key: str, template: Any) -> str:
    try:
        names = [name for _, name, _, _ in Formatter().parse(str(template)) if name is not None]
        unknown = [n for n in names if n not in _PLACES]
        if not unknown:
            str(template).format(**dict.fromkeys(_PLACES, 0))
            return str(template)
        problem = f"unknown field {{{unknown[0]}}}"
    except (ValueError, IndexError) as error:
        problem = str(error)
    known = ", ".join("{" + n + "}" for n in _PLACES)
    raise DataError(f"{path}: {key}: {template!r}: {problem}; fields are {known}")


def _splits(value: Any, notes: list[str]) -> dict[str, list[tuple[int, int]]]:
    """Splits such as {"train": "0:90", "val": "90:100"}; empty for a single one."""
    if not isinstance(value, dict) or len(value) < 2:
        return {}
    found: dict[str, list[tuple[int, int]]] = {}
    try:
        for name, text in value.items():
            parts = [p.split(":") for p in re.split(r"[,\s]+", str(text).strip()) if p]
            found[str(name)] = [(int(p[0]), int(p[-1]) + (len(p) == 1)) for p in parts]
    except ValueError:
        notes.append(f"meta/info.json: splits {value} are not ranges of episodes: ignored")
        return {}
    named = {("val" if n.lower() in _VALIDATION else n.lower()): r for n, r in found.items()}
    if "val" not in named and "test" in named:
        named["val"] = named.pop("test")
    return named


def declared_field(key: str, feature: dict[str, Any], info: Path) -> tuple[Field, str]:
    """The field that a feature declares, and what is wrong with it; dims 0: not declared."""
    dtype, shape = dtype_of(feature), feature.get("shape")
    valid = isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape)
    sizes: list[int] = list(shape or []) if valid else []
    if dtype in ("video", "image"):
        return Field("image", depth=_declares_depth(key, feature, sizes)), ""
    if dtype == "string":
        return Field("text"), ""
    dims = math.prod(sizes) if valid else 0
    return named_field(key, feature, dims, info)


def dtype_of(feature: dict[str, Any]) -> str:
    """The declared type in lower case; empty: not declared."""
    return str(feature.get("dtype") or "").lower()


def named_field(key: str, feature: dict[str, Any], dims: int, info: Path) -> tuple[Field, str]:
    """A field of numbers with its declared names, and what is wrong with them."""
    shape = feature.get("shape")
    if not dims or (isinstance(shape, list) and len(shape) > 1):  # a matrix has names of its axes
        return Field("numbers", dims), ""
    try:
        names = names_of(feature.get("names"), dims, f"{info}: features.{key}.names")
    except DataError as error:
        return Field("numbers", dims), str(error)
    return Field("numbers", dims, names), ""


def _declares_depth(key: str, feature: dict[str, Any], shape: list[int]) -> bool:
    details: dict[str, Any] = {}
    for part in ("info", "video_info"):
        if isinstance(feature.get(part), dict):
            details |= feature[part]
    if details.get("is_depth_map") or details.get("video.is_depth_map"):
        return True
    channels = details.get("video.channels")
    if len(shape) == 3:
        names = feature.get("names")
        named = [str(n) for n in names] if isinstance(names, list) else []
        axis = next((n for n, name in enumerate(named) if name.startswith("channel")), None)
        channels = min(shape) if axis is None or axis > 2 else shape[axis]
    return channels == 1 and is_depth(key, 1)
