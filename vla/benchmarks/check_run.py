"""Runs and prints the checks of ``vla bench-check``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from vla.benchmarks.base import SEED, Benchmark, Check, Task
from vla.benchmarks.checks import checks_of, compare_actions, compare_bounds, compare_inputs
from vla.config import override
from vla.data.images import decode_image
from vla.data.packed import PackedFolder, open_packed
from vla.data.samples import read_frame, read_json, read_steps
from vla.errors import DataError
from vla.evaluation.checked_env import CheckedEnvironment
from vla.evaluation.rollout import open_benchmark
from vla.inference.exported_bound import open_policy
from vla.policies.spec import RobotSpec
from vla.utils.progress import track
from vla.utils.resize import fit_image
from vla.utils.tables import print_table

_SAMPLES = 20  # first images of episodes that are averaged
_SIDE = 32  # px of the images that are compared
# A flip is clear if its correlation is so large, and so much larger than that without a flip.
_ALIKE, _BETTER = 0.5, 0.1
_WAYS = {
    "as the benchmark's": (1, 1),
    "mirrored": (1, -1),
    "upside down": (-1, 1),
    "rotated by 180 degrees": (-1, -1),
}


def run_checks(
    name: str,
    overrides: Sequence[str],
    task: str | None,
    policy: Path | None,
    data: Path | None,
    attempts: int,
) -> bool:
    """Print a table of the checks of a benchmark. Returns True if all of them pass.

    Args:
        name: registered name of the benchmark.
        overrides: its options as key=value.
        task: the task that is checked; None: the first default task.
        policy, data: a saved policy and packed data that are compared with the benchmark.
        attempts: see ``checks_of``.

    Raises:
        ConfigError: an unknown benchmark or option, or a missing package.
        DataError: ``data`` has no actions.
    """
    config = override({"name": name}, list(overrides))
    spec = open_policy(policy).spec if policy else None
    benchmark = open_benchmark(config, spec.cameras if spec else ())
    chosen = benchmark.select([task] if task else [])[0]
    own = checks_of(benchmark, chosen, attempts)
    checks = list(track(own, f"check {name}", unit="checks"))
    checks += _of_policy(benchmark, chosen, spec) if spec else ()
    checks += _of_data(open_benchmark(config), chosen, data) if data else ()
    failed = sum(not check.passed for check in checks)
    facts = ", ".join(f"{key} {value}" for key, value in benchmark.facts().items())
    rows = [
        {
            "check": check.name,
            "result": "PASS" if check.passed else "FAIL",
            "measured": check.measured,
            "expected": check.expected,
        }
        for check in checks
    ]
    print_table(rows, f"{name}, task {chosen.id}{f' ({facts})' if facts else ''}")
    if type(benchmark).checks is Benchmark.checks:
        print(f"{name} has no checks of its own; these are those of every benchmark")
    print(f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} passed")
    return not failed


def _of_policy(benchmark: Benchmark, task: Task, spec: RobotSpec) -> Iterator[Check]:
    yield from compare_actions(spec.action_space, benchmark.action_space, "policy")
    with closing(CheckedEnvironment(benchmark, task)) as env:
        yield from compare_inputs(env, spec.cameras, spec.state_dim, "policy")


def _of_data(benchmark: Benchmark, task: Task, folder: Path) -> Iterator[Check]:
    packed = open_packed(folder)
    manifest = packed.manifest
    if manifest.action_space is None:
        raise DataError(f"{folder}: image-text data has no actions; choose recorded robot data")
    yield from compare_actions(manifest.action_space, benchmark.action_space, "data")
    values = manifest.statistics.get("actions")
    if values is not None:
        space = benchmark.action_space
        yield compare_bounds("data: recorded actions", values["min"], values["max"], space)
    with closing(CheckedEnvironment(benchmark, task)) as env:
        state = read_steps(next(packed.samples())).get("state", np.zeros((1, 0)))
        yield from compare_inputs(env, manifest.cameras, state.shape[1], "data")
        first = env.reset(seed=SEED)[0]["images"]
        for camera in manifest.cameras:
            if camera in first:
                yield _orientation(np.asarray(first[camera]), _first_images(packed, camera), camera)


def _first_images(packed: PackedFolder, camera: str) -> np.ndarray:
    """The mean (S, S, 3) of the first images of some episodes."""
    images = []
    for sample in islice(packed.samples(), _SAMPLES):
        frame = read_frame(sample, read_json(sample), camera, 0)
        images.append(_small(decode_image(frame, sample["__key__"])))
    mean: np.ndarray = np.mean(images, 0)
    return mean


def _small(image: np.ndarray) -> np.ndarray:
    return fit_image(image, (_SIDE, _SIDE), "stretch").astype(float)


def _orientation(ours: np.ndarray, theirs: np.ndarray, camera: str) -> Check:
    """Which flip of the benchmark's first image is most like the first images of the data."""
    plain = _small(ours)
    alike = {
        way: float(np.corrcoef(plain[::rows, ::columns].ravel(), theirs.ravel())[0, 1])
        for way, (rows, columns) in _WAYS.items()
    }
    own, best = next(iter(_WAYS)), max(alike, key=alike.__getitem__)
    is_clear = alike[best] >= _ALIKE and alike[best] - alike[own] >= _BETTER
    others = "" if best == own else f", {own} {alike[own]:.2f}"
    others += "" if best == own or is_clear else ": not clear"
    return Check(
        f"data: flip of {camera}",
        "first images as the benchmark's",
        f"{best}, correlation {alike[best]:.2f}{others}",
        not is_clear,
    )
