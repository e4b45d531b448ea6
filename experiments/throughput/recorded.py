"""Reading speed on real recordings.

LeRobot keeps the recorded size and resizes on every read; shards have the training size.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from readers import as_lerobot, frames_in, from_shards, kb_a_frame, random_access

from vla.data.manifest import Manifest
from vla.data.pack import pack_from
from vla.utils.csv_tables import markdown

SHARED = Path(__file__).parents[3] / "shared" / "realdata"
THEIRS = {
    "lerobot_tables": "to tables in memory",
    "lerobot3_open": "to open files (3.0)",
    "lerobot2_opened": "to reopened files (2.1)",
}
OURS = {"shards": "JPEG", "shards_ppm": "PPM, lossless"}
SETS = {  # folder, camera field, side of the square images in px, changes of the packing
    "Bridge": ("bridge_rlds", "steps/observation/image_0", 256, ["source.mapping.fps=5"]),
    "G1": ("g1_lerobot21", "observation.images.cam_high", 480, []),
}
SIZES = (64, 224)  # training sizes in px: the tabletop's, and pretrained vision encoders'


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians of the readers, and medians of their ratios."""
    ratios = {
        f"ratio_{o}_{k}": statistics.median(r[o] / r[k] for r in rounds)
        for o in OURS
        for k in THEIRS
    }
    return {k: statistics.median(r[k] for r in rounds) for k in rounds[0]} | ratios


def against(row: dict[str, Any], ours: str) -> list[str]:
    """Table cells: the ratio of our samples a second to each LeRobot reader's."""
    return [f"{row[f'ratio_{ours}_{k}']:.1f}" for k in THEIRS]


def recorded(rounds: int, root: Path) -> list[dict[str, Any]]:
    """A row for every data set and image size; all readers take turns."""
    measured = []
    for name, (folder, field, side, extra) in SETS.items():
        camera = "camera"
        changes = [
            *extra,
            f"source.mapping.cameras={{{camera}: {field}}}",
            "shard_size=5",
            "val_fraction=0.0",
        ]

        def packed(
            size: int,
            image_format: str,
            changes: list[str] = changes,
            folder: str = folder,
            name: str = name,
        ) -> tuple[Path, Manifest]:
            out = root / f"{name}_{size}_{image_format}"
            own = [f"source.mapping.size={size}", f"source.mapping.image_format={image_format}"]
            return out, pack_from(SHARED / folder, out, [*changes, *own], skip_missing=True)

        whole, manifest = packed(side, "jpeg")
        many = as_lerobot(whole, root / f"{name}_lerobot3", 50, camera)
        single = as_lerobot(whole, root / f"{name}_lerobot2", 1, camera)
        for size in SIZES:
            jpeg, plain = (packed(size, kind)[0] for kind in ("jpeg", "ppm"))
            found = [
                {
                    "shards": from_shards(jpeg, 3200, camera),
                    "shards_ppm": from_shards(plain, 3200, camera),
                    "lerobot_tables": random_access(many, 200, "tables", size),
                    "lerobot3_open": random_access(many, 50, "files", size),
                    "lerobot2_opened": random_access(single, 50, "nothing", size),
                }
                for _ in range(rounds)
            ]
            frames = manifest.steps
            kb = {
                k: kb_a_frame([*f.glob("shard-*.tar")], frames)
                for k, f in zip(OURS, (jpeg, plain), strict=True)
            }
            about = {
                "set": name,
                "recorded": side,
                "size": size,
                "frames": frames / manifest.samples,
            }
            measured.append(
                about
                | summary(found)
                | {"kb": kb | {"lerobot": kb_a_frame(many, frames_in(many))}, "rounds": found}
            )
    return measured


def recorded_table(rows: list[dict[str, Any]]) -> str:
    """Markdown table of the recordings at the largest size."""
    largest = max(r["size"] for r in rows)
    lines = [
        [
            r["set"],
            str(r["size"]),
            what,
            f"{r['kb'][o]:.1f}",
            f"{r[o]:,.0f}",
            *against(r, o),
        ]
        for r in rows
        if r["size"] == largest
        for o, what in OURS.items()
    ]
    return markdown(
        [
            "recordings",
            "px",
            "format",
            "KB a frame",
            "samples a second",
            *THEIRS.values(),
        ],
        lines,
    )
