"""Recorded robot data as a source to pack: any reader through a mapping."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.config import register
from vla.data.manifest import DataError
from vla.data.mapping import Mapping, Plan
from vla.data.pictures import encode_image
from vla.data.readers import open_reader
from vla.schema import ActionSpace, Episode


@register("source", "robot")
class RobotSource:
    """LeRobot, RLDS, HDF5 or a plain folder; the format is found out.

    The action space's bounds are those of the data: packing puts them in when it has seen all.

    Args:
        path: the data set. mapping: which fields are what, see ``Mapping``. skip_missing: pack what is there of an incomplete download.

    Raises:
        DataError: no known format, files that the description promises are missing, or the mapping does not fit.
    """

    def __init__(self, path: str, mapping: Mapping | None = None, skip_missing: bool = False) -> None:
        self.reader = open_reader(Path(path))
        if self.reader.missing and not skip_missing:
            raise DataError(
                f"{path}: {'; '.join(self.reader.missing)}; complete the download, or pack what is there with --skip-missing"
            )
        if len(self.reader) == 0:
            raise DataError(f"{path}: none of its episodes has its files; download the whole data set")
        self.plan = Plan(self.reader, mapping or Mapping())
        names, rules = tuple(self.plan.names), self.plan.mapping
        units = tuple(rules.units or ["recorded"] * len(names))
        if len(units) != len(names):
            raise DataError(f"{path}: mapping.units: {len(units)} units for {len(names)} action dims")
        low = tuple(0.0 if n in rules.binary else -math.inf for n in names)
        high = tuple(1.0 if n in rules.binary else math.inf for n in names)
        self.action_space: ActionSpace | None = ActionSpace(names, units, low, high, tuple(rules.binary), self.plan.rate)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Episode:
        recording, plan = self.reader[index], self.plan
        rows = plan.rows(recording.steps)
        images = {
            ours: [
                encode_image(fitted(picture, plan.mapping), plan.mapping.pictures)
                for picture in recording.frames[theirs](rows.tolist())
            ]
            for ours, theirs in plan.cameras.items()
        }
        plans = [recording.texts[plan.mapping.plan][r] for r in rows] if plan.mapping.plan else []
        return Episode(
            recording.key,
            plan.instruction(recording),
            images,
            plan.actions(recording, rows),
            state=plan.states(recording, rows),
            plans=plans,
            robot=self.reader.robot,
            fps=plan.rate,
            source=str(self.reader.path),
        )

    def describe(self) -> dict[str, Any]:
        """Path, and what the mapping says that is not its default (so that a new choice in it does not make packed data another set)."""
        plain = asdict(Mapping())
        return {
            "name": "robot", "path": str(self.reader.path), "format": self.reader.format,
            "mapping": {k: v for k, v in asdict(self.plan.mapping).items() if v != plain[k]},
            "size": self.plan.mapping.size, "cameras": self.plan.cameras, "state": self.plan.state_names,
        }  # fmt: skip


def fitted(picture: np.ndarray, mapping: Mapping) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3)."""
    image, size = Image.fromarray(picture), mapping.size
    width, height = image.size
    if mapping.fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    elif mapping.fit == "pad":
        side = max(width, height)
        square = Image.new("RGB", (side, side))
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        image = square
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)
