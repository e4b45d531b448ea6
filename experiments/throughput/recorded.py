"""The same for real recordings (../shared/realdata): kept by LeRobot as recorded and shrunk on every read, by us at the size that is trained on."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from readers import as_lerobot, frames_in, from_shards, kb_a_frame, random_access

from vla.data.pack import pack_from
from vla.tables import markdown

SHARED = Path(__file__).parents[3] / "shared" / "realdata"
THEIRS = {
    "lerobot_tables": "LeRobot, all tables in memory", "lerobot3_open": "LeRobot 3.0, files kept open", "lerobot2_opened": "LeRobot 2.1, file opened each time",
}  # fmt: skip
OURS = {"shards": "JPEG", "shards_ppm": "PPM, lossless"}
SETS = {  # folder, recorded field of the camera, the side of the square pictures as recorded (G1's 640 x 480 squashed), what packing needs
    "Bridge": ("bridge_rlds", "steps/observation/image_0", 256, ["source.mapping.fps=5"]),
    "G1": ("g1_lerobot21", "observation.images.cam_high", 480, []),
}
SIZES = (64, 224)  # trained on: the tabletop's, and what pretrained eyes want


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians of the readers, and medians of their ratios."""
    ratios = {f"ratio_{o}_{k}": statistics.median(r[o] / r[k] for r in rounds) for o in OURS for k in THEIRS}
    return {k: statistics.median(r[k] for r in rounds) for k in rounds[0]} | ratios


def against(row: dict[str, Any], ours: str) -> list[str]:
    """Cells: their samples a second, and what one of them is to ours."""
    return [f"{row[k]:,.0f} (1 : {row[f'ratio_{ours}_{k}']:.1f})" for k in THEIRS]


def recorded(rounds: int, root: Path) -> list[dict[str, Any]]:
    """A row a data set and size: all readers in turn, every one handing over pictures of that size."""
    measured = []
    for name, (folder, field, side, extra) in SETS.items():
        camera = "seen"
        changes = [*extra, f"source.mapping.cameras={{{camera}: {field}}}", "shard_size=5", "val_fraction=0.0"]

        def packed(
            size: int, pictures: str, changes: list[str] = changes, folder: str = folder, name: str = name
        ) -> tuple[Path, dict[str, Any]]:
            out = root / f"{name}_{size}_{pictures}"
            own = [f"source.mapping.size={size}", f"source.mapping.pictures={pictures}"]
            return out, pack_from(SHARED / folder, out, [*changes, *own], skip_missing=True)

        whole, manifest = packed(side, "jpeg")
        many = as_lerobot(whole, manifest, root / f"{name}_lerobot3", 50, camera)
        single = as_lerobot(whole, manifest, root / f"{name}_lerobot2", 1, camera)
        for size in SIZES:
            jpeg, plain = (packed(size, kind)[0] for kind in ("jpeg", "ppm"))
            found = [
                {
                    "shards": from_shards(jpeg, 3200, camera), "shards_ppm": from_shards(plain, 3200, camera),
                    "lerobot_tables": random_access(many, 200, "tables", size), "lerobot3_open": random_access(many, 50, "files", size),
                    "lerobot2_opened": random_access(single, 50, "nothing", size),
                }
                for _ in range(rounds)
            ]  # fmt: skip
            frames = manifest["steps"]
            kb = {k: kb_a_frame([*f.glob("shard-*.tar")], frames) for k, f in zip(OURS, (jpeg, plain), strict=True)}
            about = {"set": name, "recorded": side, "size": size, "frames": frames / manifest["samples"]}
            measured.append(about | summary(found) | {"kb": kb | {"lerobot": kb_a_frame(many, frames_in(many))}, "rounds": found})
    return measured


def recorded_table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [
        [
            f"{r['set']}, {r['frames']:.0f} frames, {r['recorded']} px, {r['kb']['lerobot']:.0f} KB", f"{r['size']} px", what, f"{r['kb'][o]:.1f}",
            f"{r[o]:,.0f}", *against(r, o),
        ]
        for r in rows
        for o, what in OURS.items()
    ]  # fmt: skip
    return markdown(
        ["episodes as recorded (PNG)", "handed over", "our pictures", "KB a frame", "our samples/s", *THEIRS.values()], lines
    )
