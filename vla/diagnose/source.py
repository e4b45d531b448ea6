"""The packed episodes against the recording that they were packed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vla.config import build
from vla.data.images import decode_image, encode_image
from vla.data.manifest import Manifest
from vla.data.readers.base import Recording
from vla.data.robot import RobotSource
from vla.diagnose.lines import (
    ACTION_TYPE,
    CAMERAS,
    GRIPPER,
    INSTRUCTIONS,
    VIDEO,
    Line,
    listed,
    not_judged,
)
from vla.diagnose.windows import instruction_at
from vla.doctor.views import EpisodeView
from vla.utils.resize import fit_image

CHECK = "packed data"
_EPISODES, _TEXTS = 4, 40  # episodes whose numbers and images, and whose instructions, are compared
_ROWS = 6  # compared frames of an episode
_SHIFT = 6  # rows in each direction
_NOTICED = 0.3  # smallest difference of grey levels that counts


def open_source(manifest: Manifest) -> RobotSource | str:
    """The recorded data set of a pack, with the same mapping; or why it cannot be opened."""
    about = manifest.identity.get("source", {})
    if about.get("name") != "robot":
        return f"packed from {about.get('name', 'an unknown source')}, not from recorded data"
    path = Path(about["path"])
    if not path.exists():
        return f"the recording {path} is not here"
    mapping = {"size": about["size"], "cameras": about["cameras"]} | about["mapping"]
    try:
        source: RobotSource = build(
            "source",
            {"name": "robot", "path": str(path), "mapping": mapping, "skip_missing": True},
            "source",
        )
    except (ValueError, OSError) as error:
        return f"the recording does not open: {error}"
    return source


def pairs(
    source: RobotSource, episodes: Sequence[EpisodeView], most: int
) -> Iterator[tuple[Recording, EpisodeView]]:
    """At most ``most`` recordings, evenly spread, with their packed episodes (by key)."""
    packed = {e.key: e for e in episodes}
    total = len(source.reader)
    for index in np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int)):
        try:
            recording = source.reader[int(index)]
        except (ValueError, OSError):  # left out when packing, or unreadable: the doctor says so
            continue
        episode = packed.get(recording.key)
        if episode is not None:
            yield recording, episode


def packed_against_source(
    source: RobotSource | str, manifest: Manifest, episodes: Sequence[EpisodeView]
) -> list[Line]:
    """Compare numbers, instructions and frames; the best explanation of a difference is named."""
    if isinstance(source, str):
        return [not_judged(CHECK, f"no comparison with the recording: {source}")]
    lines = _instructions(source, episodes)
    compared = list(pairs(source, episodes, _EPISODES))
    if not compared:
        return [*lines, not_judged(CHECK, "no recording has a packed episode's key")]
    lines += _numbers(source, manifest, compared) + _frames(source, compared)
    lines += _camera_names(source)
    return lines or [
        Line(
            CHECK,
            "ok",
            f"{len(compared)} episodes equal the recording {source.reader.path} in actions, "
            "state, frames and instructions",
        )
    ]


def _fail(finding: str, fault: str = "", verdict: str = "fail") -> Line:
    fix = "pack the recording again into a new folder and train on it"
    return Line(CHECK, "warn" if verdict == "warn" else "fail", finding, fix, fault)


def _instructions(source: RobotSource, episodes: Sequence[EpisodeView]) -> list[Line]:
    wrong, known, count, example = 0, set(), 0, ""
    found: list[tuple[str, str]] = []
    for recording, episode in pairs(source, episodes, _TEXTS):
        rows = source.mapping.rows(recording.steps)
        every = source.mapping.instructions(recording)
        theirs = [every[r] for r in rows]
        ours = [instruction_at(episode, t) for t in range(len(episode.actions))]
        known |= set(theirs)
        count += 1
        if ours != theirs:
            wrong += 1
            found.append((ours[0], theirs[0]))
            example = example or f"{episode.key}: {ours[0]!r}, recorded {theirs[0]!r}"
    if not wrong:
        return []
    from_others = all(ours in known for ours, _ in found)
    what = "instructions are shuffled" if from_others else "instructions differ from the recording"
    text = f"{what} in {wrong} of {count} episodes ({example})"
    return [_fail(text, INSTRUCTIONS if from_others else "")]


def _numbers(
    source: RobotSource,
    manifest: Manifest,
    compared: Sequence[tuple[Recording, EpisodeView]],
) -> list[Line]:
    assert manifest.action_space is not None
    mapping, names = source.mapping, manifest.action_space.names
    rows = [mapping.rows(r.steps) for r, _ in compared]
    theirs = [mapping.actions(r, i) for (r, _), i in zip(compared, rows, strict=True)]
    ours = [e.actions for _, e in compared]
    uneven = [
        e.key for (_, e), a, b in zip(compared, ours, theirs, strict=True) if len(a) != len(b)
    ]
    if uneven or ours[0].shape[1] != theirs[0].shape[1]:
        return [_fail(f"another number of rows or action dims than recorded ({listed(uneven)})")]
    a, b, lines = np.concatenate(ours), np.concatenate(theirs), []
    state = [mapping.states(r, i) for (r, _), i in zip(compared, rows, strict=True)]
    states = np.concatenate([s for s in state if s is not None]) if state[0] is not None else None
    for k, name in enumerate(names):
        scale = max(float(b[:, k].std()), 1e-6)
        if np.abs(a[:, k] - b[:, k]).max() > 1e-3 * scale:
            how, fault = _relation(a[:, k], b[:, k], states, scale)
            lines.append(_fail(f"{name} differs from the recording: {how}", fault))
    if states is not None and all(e.state is not None for _, e in compared):
        packed = np.concatenate([e.state for _, e in compared])
        if packed.shape != states.shape or np.abs(packed - states).max() > 1e-3 * states.std():
            lines.append(_fail("the state differs from the recording"))
    return lines


def _relation(
    ours: np.ndarray, theirs: np.ndarray, states: np.ndarray | None, scale: float
) -> tuple[str, str]:
    """How packed values follow from recorded ones, and the fault that this is."""
    if ours.std() > 1e-9 and np.corrcoef(ours, theirs)[0, 1] < -0.999:
        return "inverted (the sign or open and closed are exchanged)", GRIPPER
    for p in range(0 if states is None else states.shape[1]):
        assert states is not None
        for sign, text in ((-1, "movements, recorded"), (1, "absolute targets, recorded")):
            if np.abs(ours - theirs - sign * states[:, p]).max() < 0.01 * scale:
                kinds = "absolute targets" if sign < 0 else "movements"
                return f"packed as {text} as {kinds} (state {p} apart)", ACTION_TYPE
    return f"by up to {np.abs(ours - theirs).max():.4g}", ""


def _frames(source: RobotSource, compared: Sequence[tuple[Recording, EpisodeView]]) -> list[Line]:
    """Packed frames against those of neighbouring rows and of the other cameras."""
    options, cameras = source.mapping.mapping, source.mapping.cameras
    shifts = range(-_SHIFT, _SHIFT + 1)
    by_shift: dict[str, np.ndarray] = {c: np.zeros(len(shifts)) for c in cameras}
    by_camera = {c: dict.fromkeys(cameras, 0.0) for c in cameras}
    for recording, episode in compared:
        rows = source.mapping.rows(recording.steps)
        inside = np.arange(_SHIFT, max(_SHIFT + 1, len(rows) - _SHIFT))
        steps = np.minimum(inside[:: max(1, len(inside) // _ROWS)], len(rows) - 1)
        near = {t: np.clip(t + np.array(shifts), 0, len(rows) - 1) for t in steps.tolist()}
        wanted = np.unique(np.concatenate(list(near.values())))
        stored = {}
        for camera, field in cameras.items():
            frames = recording.frames[field](rows[wanted].tolist())
            fitted = (fit_image(f, source.image_size, options.fit) for f in frames)
            again = (encode_image(f, options.image_format) for f in fitted)
            decoded = [decode_image(f, episode.key).astype(np.int16) for f in again]
            stored[camera] = dict(zip(wanted.tolist(), decoded, strict=True))
        for camera in [c for c in cameras if c in episode.cameras]:
            for t, packed in zip(steps, episode.images(camera, steps.tolist()), strict=True):
                if packed.shape != next(iter(stored[camera].values())).shape:
                    return [_fail(f"camera {camera}: packed frames have another size")]
                by_shift[camera] += [
                    np.abs(stored[camera][int(r)] - packed).mean() for r in near[int(t)]
                ]
                for other in cameras:
                    by_camera[camera][other] += np.abs(stored[other][int(t)] - packed).mean()
    count = sum(1 for _ in compared) * _ROWS
    lines = []
    for camera in cameras:
        nearest = min(by_camera[camera], key=lambda c: by_camera[camera][c])
        best = shifts[int(np.argmin(by_shift[camera]))]
        here, there = by_shift[camera][_SHIFT] / count, by_shift[camera].min() / count
        if nearest != camera and by_camera[camera][nearest] < 0.5 * by_camera[camera][camera]:
            text = f"cameras swapped: {camera} has the frames that were recorded as {nearest}"
            lines.append(_fail(text, CAMERAS))
        elif best and here - there > _NOTICED and there < 0.5 * here:
            text = (
                f"video shifted: camera {camera} has the frames of {best:+d} rows "
                f"(difference {there:.1f} grey levels instead of {here:.1f})"
            )
            lines.append(_fail(text, VIDEO))
        elif here > 8:
            lines.append(_fail(f"camera {camera}: frames differ by {here:.0f} grey levels"))
    return lines


def _camera_names(source: RobotSource) -> list[Line]:
    """Cameras that are read from a field whose name is that of another camera."""
    cameras = source.mapping.cameras
    short = {c: f.replace("/", ".").rsplit(".", 1)[-1] for c, f in cameras.items()}
    wrong = [c for c in cameras if short[c] != c and short[c] in cameras]
    text = ", ".join(f"{c} is read from {cameras[c]}" for c in wrong)
    return (
        [_fail(f"cameras swapped in source.mapping.cameras? {text}", CAMERAS, "warn")]
        if wrong
        else []
    )
