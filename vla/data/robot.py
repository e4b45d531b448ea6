"""The source ``robot``: recorded robot data, read by any reader through a mapping."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vla.config import register
from vla.data.conventions import conventions
from vla.data.fingerprint import file_states
from vla.data.images import encode_image, flip_image
from vla.data.mapping import Mapping
from vla.data.readers import open_reader
from vla.data.readers.base import Recording
from vla.data.readers.files import SKIP_BAD
from vla.data.readers.pixels import depth_to_grey
from vla.data.resolved_mapping import ResolvedMapping
from vla.data.row_texts import first_text, varying
from vla.data.source import Source
from vla.errors import BadSample, DataError
from vla.types import ActionSpace, Episode
from vla.utils.resize import fit_image


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
        self._check_episodes()
        self.mapping = ResolvedMapping(self.reader, mapping or Mapping())
        if skip_missing:
            self.reader.leave_out_incomplete(self.mapping.used)
            self._check_episodes()
        names, options = tuple(self.mapping.names), self.mapping.mapping
        if not options.depth_range_mm[0] < options.depth_range_mm[1]:
            raise DataError(f"{path}: mapping.depth_range_mm: expected two rising distances in mm")
        units = tuple(options.units or ["recorded"] * len(names))
        if len(units) != len(names):
            raise DataError(
                f"{path}: mapping.units: {len(units)} units for {len(names)} action dims"
            )
        low = tuple(0.0 if n in options.binary else -math.inf for n in names)
        high = tuple(1.0 if n in options.binary else math.inf for n in names)
        self.image_size = (options.size, options.size) if self.mapping.cameras else (0, 0)
        self.image_fit = options.fit
        self.bad = dict(self.reader.bad)
        self.notes = (*self.reader.notes, *self.mapping.notes)
        self.state_names = tuple(self.mapping.state_names)
        self.delta = tuple(options.delta)
        binary, integer = tuple(options.binary), tuple(options.integer)
        self.action_space = ActionSpace(
            *(names, units, low, high, binary, self.mapping.rate, integer),
            **conventions(options, names, self.reader.path),
        )

    def _check_episodes(self) -> None:
        if len(self.reader) == 0:
            raise DataError(
                f"{self.reader.path}: no episode has all its files; download the whole data set"
            )

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Episode:
        recording, mapping = self.reader[index], self.mapping
        if recording.steps < 1:
            raise BadSample(f"{self.reader.path}: episode {recording.key} has no rows; {SKIP_BAD}")
        options, rows = mapping.mapping, mapping.rows(recording.steps)
        images = {
            camera: [
                encode_image(fit_image(image, self.image_size, options.fit), options.image_format)
                for image in self.images(recording, camera, rows.tolist())
            ]
            for camera in mapping.cameras
        }
        plans = [recording.texts[options.plan][r] for r in rows] if options.plan else []
        every = mapping.instructions(recording)
        texts = [every[r] for r in rows]
        return Episode(
            recording.key,
            first_text(texts),
            images,
            mapping.actions(recording, rows),
            state=mapping.states(recording, rows),
            plans=plans,
            robot=self.reader.robot,
            fps=mapping.rate,
            source=str(self.reader.path),
            instructions=varying(texts),
            split=recording.split,
            group=mapping.group(recording),
        )

    def images(
        self, recording: Recording, camera: str, rows: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """The images of some rows in rising order, (H, W, 3) uint8; depth is converted.

        Raises:
            BadSample: a depth image in a camera that the mapping does not name.
        """
        options = self.mapping.mapping
        frames = recording.frames[self.mapping.cameras[camera]](rows)
        for row, image in zip(rows, frames, strict=True):
            if image.ndim == 2 and options.cameras is None:
                raise BadSample(
                    f"{self.reader.path}: episode {recording.key}, row {row}: camera {camera!r} "
                    f"has a depth image among colour images; {SKIP_BAD}, or name the cameras in "
                    "source.mapping.cameras"
                )
            grey = depth_to_grey(image, options.depth_range_mm) if image.ndim == 2 else image
            yield flip_image(grey, options.flip.get(camera))

    def location(self, index: int) -> str:
        """The file of an episode."""
        return self.reader.location(index)

    def files(self) -> dict[str, str]:
        """States of all files of the data set."""
        return file_states(self.reader.path)

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
