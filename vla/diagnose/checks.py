"""All checks of a diagnosis, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vla.diagnose import action_type, closed_loop, inputs, open_loop, senses, serving, source
from vla.diagnose.lines import CAMERAS, VIDEO, Line
from vla.diagnose.looks import camera_looks
from vla.diagnose.statistics import statistics
from vla.diagnose.subject import Subject
from vla.diagnose.timing import recorded_shift
from vla.diagnose.windows import sample_windows
from vla.doctor.checks import examine
from vla.doctor.findings import Finding
from vla.doctor.views import EpisodeView, open_dataset

_INSTALL = "repair or install the environment"
_REPAIR = "repair the recording, or restore it at its old path"


def diagnose(
    subject: Subject,
    benchmark: Mapping[str, Any],
    limit: int = 256,
    episodes: int = 20,
    start: Callable[[str], None] = lambda check: None,
) -> Iterator[Line]:
    """All checks in order; each line as soon as it is known.

    Args:
        benchmark: the environment; empty: only replay, in the one of the recording.
        limit: recorded observations on which the policy predicts.
        episodes: environment episodes for each wording of the instruction.
        start: called with the name of each check before it runs.
    """
    start("training data")
    dataset = open_dataset(subject.data)
    summary, findings = examine(dataset)
    yield _doctor(findings, subject.data)
    found, manifest = summary.episodes, subject.manifest
    start("packed data")
    recorded = source.open_source(manifest)
    compare = partial(source.packed_against_source, recorded, manifest, found)
    yield from _if_it_works(source.CHECK, compare, _REPAIR)
    preprocess = partial(serving.preprocessing, subject, recorded, found)
    yield from _if_it_works("preprocessing", preprocess, _REPAIR)
    start("recorded video timing")
    yield from recorded_shift(found, dataset.action_space.rate_hz)
    pairs = _state_pairs(subject, found)
    yield from _recorded_actions(subject, found, pairs)
    start("replay")
    replay = partial(closed_loop.replayed, subject, benchmark, pairs)
    yield from _if_it_works("replay", replay, _INSTALL)
    unusable = _unusable(subject, found)
    if unusable:
        yield from statistics(subject, found)
        yield unusable
        return
    yield from _policy(subject, found, pairs, limit, start)
    if benchmark:
        start("success")
        run = partial(closed_loop.language_success, subject, benchmark, episodes)
        yield from _if_it_works("success", run, _INSTALL)


def _policy(
    subject: Subject,
    found: Sequence[EpisodeView],
    pairs: dict[int, int],
    limit: int,
    start: Callable[[str], None],
) -> Iterator[Line]:
    """The checks that call the policy, and the statistics.

    Faults can hide each other. So the kind of the actions comes first, then cameras and video,
    whose scores do not depend on signs; the later checks use the inputs with which the policy
    agrees.
    """
    windows = sample_windows(subject.policy, list(found), limit)
    start("open-loop error")
    predicted = windows.predict()
    kinds = action_type.kinds(found, pairs)
    absolute = [k for k, kind in kinds.items() if kind == "target"]
    yield from open_loop.baselines(windows, predicted, pairs, absolute)
    start("action type")
    target, other, lines = action_type.typed_target(windows, predicted, pairs)
    yield from lines or [Line("action type", "ok", _kinds_text(subject, kinds))]
    start("statistics")
    yield from statistics(subject, found, other)
    start("cameras")
    images, lines = inputs.cameras(windows, predicted, target)
    looks = camera_looks(subject, found)
    yield from looks or lines
    start("video timing")
    predicted = windows.predict(images)
    images, lines = inputs.video_shift(windows, images, predicted, target)
    yield from lines
    start("language")
    lines = senses.language(windows, images, target, found)
    yield from lines
    follows = lines[0].verdict == "ok"
    start("action signs")
    predicted = windows.predict(images)
    inverted, lines = open_loop.signs(windows, predicted, target, only_binary=not follows)
    yield from lines
    start("vision")
    target = open_loop.turned(target, inverted)
    yield from senses.vision(windows, images, target, judge_errors=follows)
    start("server")
    yield from serving.server(windows)
    yield from serving.merged_adapters(windows)


def _if_it_works(check: str, run: Callable[[], list[Line]], fix: str) -> list[Line]:
    """The lines of a check; one line if its environment or recording fails."""
    try:
        return run()
    except (ValueError, OSError, ImportError) as error:
        return [Line(check, "warn", f"not judged: {error}", fix, judged=False)]


def _unusable(subject: Subject, found: Sequence[EpisodeView]) -> Line | None:
    """Why the policy cannot predict on this data; None if it can."""
    spec, cameras = subject.policy.spec, subject.manifest.cameras
    missing = [c for c in spec.cameras if c not in cameras]
    if missing:
        text = f"the policy needs {', '.join(missing)}; the data has {', '.join(cameras)}"
        return Line("cameras", "fail", text, "pack the data with these camera names", CAMERAS)
    widths = {0 if e.state is None else e.state.shape[1] for e in found}
    if spec.state_dim and widths != {spec.state_dim}:
        text = f"the policy needs a state of {spec.state_dim} numbers; the data has {widths}"
        return Line("state", "fail", text, "pack the data with source.mapping.state as in training")
    return None


def _state_pairs(subject: Subject, found: Sequence[EpisodeView]) -> dict[int, int]:
    space, manifest = subject.policy.spec.action_space, subject.manifest
    width = min((e.state.shape[1] if e.state is not None else 0) for e in found)
    packed = manifest.identity.get("source", {}).get("mapping", {}).get("delta", {})
    named = action_type.state_pairs(space.names, manifest.state_names[:width], packed)
    binary = [k for k, n in enumerate(space.names) if n in space.binary]
    by_motion = action_type.paired_by_motion(found, binary) if width and not named else {}
    return {k: p for k, p in (named or by_motion).items() if k not in binary}


def _recorded_actions(
    subject: Subject, found: Sequence[EpisodeView], pairs: dict[int, int]
) -> Iterator[Line]:
    spec, manifest = subject.policy.spec, subject.manifest
    names = spec.action_space.names
    declared: dict[int, action_type.Kind] = {
        k: "movement" for k, n in enumerate(names) if n in manifest.delta
    }
    yield from action_type.recorded_kinds(found, names, pairs, declared, spec.relative)
    yield from action_type.gripper_signs(found, names, manifest.state_names)


def _kinds_text(subject: Subject, kinds: Mapping[int, str]) -> str:
    names = subject.policy.spec.action_space.names
    shown = ", ".join(f"{names[k]} {kind}" for k, kind in list(kinds.items())[:8])
    return f"data and policy agree ({shown or 'kinds unknown: no state of the same quantity'})"


def _doctor(findings: Sequence[Finding], data: Path) -> Line:
    """One line for the findings of the doctor."""
    errors = [f for f in findings if f.severity == "error"]
    warnings = [f for f in findings if f.severity == "warning"]
    worst = errors or warnings
    if not worst:
        return Line("data", "ok", f"vla doctor finds no defect in {data}")
    text = "; ".join(f"{f.check}: {f.text}" for f in worst)
    fault = VIDEO if any(f.check == "video misaligned" for f in worst) else ""
    return Line("data", "fail" if errors else "warn", text, f"see vla doctor {data}", fault)
