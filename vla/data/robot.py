"""The source ``robot``: recorded robot data, read by any reader through a mapping."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.config import register
from vla.data.images import encode_image
from vla.data.mapping import Mapping
from vla.data.readers import open_reader
from vla.data.resolved_mapping import ResolvedMapping
from vla.data.source import Source
from vla.errors import DataError
from vla.types import ActionSpace, Episode


@register("source", "robot")
class RobotSource(Source):
    """A data set in any registered format (LeRobot, RLDS, HDF5, folder...).

    The bounds of the action space are infinite. ``pack`` replaces them by those of the data.

    Raises:
        DataError: an unknown format, missing files, or a mapping that does not fit.
    """

    def __init__(
        self,
        path: str,  # folder or file of the data set
        mapping: Mapping | None = None,  # which fields are used, and how
        skip_missing: bool = False,  # pack the available part of an incomplete download
    ) -> None:
        self.reader = open_reader(Path(path))
        if self.reader.missing and not skip_missing:
            raise DataError(
                f"{path}: {'; '.join(self.reader.missing)}; "
                "complete the download, or pack the available part with --skip-missing"
            )
        if len(self.reader) == 0:
            raise DataError(f"{path}: no episode has all its files; download the whole data set")
        self.mapping = ResolvedMapping(self.reader, mapping or Mapping())
        names, options = tuple(self.mapping.names), self.mapping.mapping
        units = tuple(options.units or ["recorded"] * len(names))
        if len(units) != len(names):
            raise DataError(
                f"{path}: mapping.units: {len(units)} units for {len(names)} action dims"
            )
        low = tuple(0.0 if n in options.binary else -math.inf for n in names)
        high = tuple(1.0 if n in options.binary else math.inf for n in names)
        self.image_size = (options.size, options.size)
        self.state_names = tuple(self.mapping.state_names)
        self.delta = tuple(options.delta)
        self.action_space = ActionSpace(
            names, units, low, high, tuple(options.binary), self.mapping.rate
        )

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Episode:
        recording, mapping = self.reader[index], self.mapping
        options, rows = mapping.mapping, mapping.rows(recording.steps)
        images = {
            camera: [
                encode_image(resize(image, options), options.image_format)
                for image in recording.frames[field](rows.tolist())
            ]
            for camera, field in mapping.cameras.items()
        }
        plans = [recording.texts[options.plan][r] for r in rows] if options.plan else []
        return Episode(
            recording.key,
            mapping.instruction(recording),
            images,
            mapping.actions(recording, rows),
            state=mapping.states(recording, rows),
            plans=plans,
            robot=self.reader.robot,
            fps=mapping.rate,
            source=str(self.reader.path),
        )

    def describe(self) -> dict[str, Any]:
        """The path, and the options of the mapping that are not at their default.

        New options of ``Mapping`` therefore do not invalidate packed data.
        """
        options, default = asdict(self.mapping.mapping), asdict(Mapping())
        return {
            "name": "robot",
            "path": str(self.reader.path),
            "format": self.reader.format,
            "mapping": {k: v for k, v in options.items() if v != default[k]},
            "size": self.mapping.mapping.size,
            "cameras": self.mapping.cameras,
            "state": self.mapping.state_names,
        }


def resize(array: np.ndarray, options: Mapping) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3)."""
    image, size = Image.fromarray(array), options.size
    width, height = image.size
    if options.fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    elif options.fit == "pad":
        side = max(width, height)
        square = Image.new("RGB", (side, side))
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        image = square
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)
