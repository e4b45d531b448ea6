"""Facts about recorded data sets and image-text data, for ``vla inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla.utils.disk import size_in_bytes
from vla.utils.text import count

SAMPLED = 50  # episodes of a recorded data set that are read


def recorded(path: Path) -> dict[str, Any]:
    """Facts about recorded data; without actions if no mapping fits, with the reason in a note."""
    from vla.data.mapping import Mapping
    from vla.data.pack import source_name
    from vla.data.readers import open_reader
    from vla.data.robot import RobotSource

    if source_name(path, {}) == "web_data":
        return _images_with_texts(path)
    reader = open_reader(path)
    facts = {
        "what": "recorded data",
        "kind": reader.format,
        "samples": len(reader),
        "bytes": size_in_bytes(path),
        "fields": {
            n: count(f.dims, "number") if f.dims else f.kind for n, f in reader.fields.items()
        },
    }
    try:
        return facts | _mapped(RobotSource(str(path), skip_missing=True))
    except ValueError as error:
        notes = [*reader.notes, str(error)]
    try:  # the rate is often the only thing that is missing
        found = _mapped(RobotSource(str(path), Mapping(fps=1.0), skip_missing=True))
        return facts | found | {"rate_hz": None, "notes": notes}
    except ValueError:
        unknown = {"cameras": {}, "actions": [], "tasks": [], "instructions": 0, "sampled": 0}
        return facts | unknown | {"notes": notes}


def _images_with_texts(path: Path) -> dict[str, Any]:
    """Facts about image-text data, with the first question in a note."""
    from vla.data.web import open_web_reader
    from vla.data.web.mapping import WebMapping
    from vla.data.web.source import WebDataSource

    reader = open_web_reader(path, None, None, WebMapping())
    notes = [*reader.notes, *reader.missing]
    try:
        first = WebDataSource(str(path), skip_missing=True)[0].qa[0]
        notes = [f"the first question: {first.question!r}, answer {first.answer!r}", *notes]
    except ValueError as error:
        notes = [str(error), *notes]
    return {
        "what": "recorded data",
        "kind": f"images with texts, {reader.format}",
        "samples": len(reader),
        "sampled": 0,
        "bytes": size_in_bytes(path),
        "fields": dict.fromkeys(reader.columns, "column"),
        "cameras": {},
        "actions": [],
        "tasks": [],
        "instructions": 0,
        "notes": notes,
    }


def _mapped(source: Any) -> dict[str, Any]:
    """What the default mapping makes of the first episodes."""
    recordings = [source.reader[n] for n in range(min(len(source), SAMPLED))]
    tasks: dict[str, int] = {}
    for recording in recordings:
        for text in dict.fromkeys(source.mapping.instructions(recording)):
            tasks[text] = tasks.get(text, 0) + 1
    rows = [source.mapping.actions(r, np.arange(r.steps)) for r in recordings if r.steps]
    values = np.concatenate(rows).astype(float)
    sizes = {}
    for camera in source.mapping.cameras:
        image = next(iter(source.images(recordings[0], camera, [0])))
        sizes[camera] = list(image.shape[:2])
    space = source.action_space
    return {
        "sampled": len(recordings),
        "steps": sum(r.steps for r in recordings),
        "cameras": sizes,
        "rate_hz": space.rate_hz,
        "actions": [
            {
                "name": name,
                "unit": unit,
                "min": float(np.nanmin(values[:, k])),
                "max": float(np.nanmax(values[:, k])),
                "mean": float(np.nanmean(values[:, k])),
                "std": float(np.nanstd(values[:, k])),
                "binary": name in space.binary,
            }
            for k, (name, unit) in enumerate(zip(space.names, space.units, strict=True))
        ],
        "state": list(source.mapping.state_names),
        "state_dims": len(source.mapping.state_names),
        "instructions": len(tasks),
        "tasks": [{"text": t, "episodes": n} for t, n in sorted(tasks.items(), key=_by_count)],
        "notes": list(source.notes),
    }


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return (-item[1], item[0])
