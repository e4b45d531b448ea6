"""The folder of a run: one configuration, the same data at every start, and a summary."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vla.config import check
from vla.data.manifest import load_manifest
from vla.errors import ConfigError, DataError
from vla.training.checkpoint_io import LAST, PREVIOUS
from vla.training.config import RunConfig, resolved
from vla.training.optim import lr_factor
from vla.utils.disk import writing
from vla.utils.io import atomic_file, write_json, write_text

CONFIG, DATA, SUMMARY, POLICY = "config.yaml", "data.json", "summary.json", "policy"
LOG = "train.log"
EVAL = "training_eval"  # results of benchmark episodes during training
_SHOWN = 5  # changed keys in a message
_MISSING = "unset"
# Options that may change when a run continues, because its batches and losses stay the same.
_FREE = [
    *(("train", n) for n in ("threads", "saved_weights", "eval")),
    *(("trainer", n) for n in ("accelerator", "devices", "num_nodes", "strategy", "max_time")),
    *(("trainer", n) for n in ("benchmark", "profiler", "detect_anomaly")),
]
# Files of an earlier start that wrote no checkpoint.
_STALE = ("tokenizer", "tensorboard", "csv-*", EVAL, LOG, "best.ckpt", "*.tmp")


def is_started(folder: Path) -> bool:
    """True if the folder has a checkpoint or a policy."""
    return _has_checkpoint(folder) or (folder / POLICY).exists()


def is_finished(folder: Path, config: RunConfig) -> bool:
    """True if the folder has the policy of this run after all its steps.

    A kill after the policy was saved and before its summary leaves a checkpoint and no summary.
    """
    if not (folder / POLICY).is_dir():
        return False
    summary = read_summary(folder)
    if not summary:
        return not _has_checkpoint(folder)
    return bool(summary.get("steps_wanted", config.train.steps) == config.train.steps)


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def read_summary(folder: Path) -> dict[str, Any]:
    """``summary.json`` of a finished run; empty if there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def check_folder(folder: Path, config: RunConfig) -> list[str]:
    """Check that the folder holds this run, or nothing that was trained.

    Loggers, evaluations and the number of threads and processes may differ, and ``train.steps``
    may grow. An option that is missing in the file has its default value.

    Returns:
        Messages about a run that gets more steps.

    Raises:
        ConfigError: the folder has the run of another configuration; the message has the changed
            keys with both values. Or the run gets more steps and has no checkpoint.
        DataError: a data set has changed since the run began.
    """
    saved = folder / CONFIG
    if not saved.is_file() or not is_started(folder):
        return []
    advice = "use the values of the run, choose another output_dir, or start over with --fresh"
    start = f"{saved}: this folder holds a run with another configuration"
    try:
        before = check(_renamed(yaml.safe_load(saved.read_text(encoding="utf-8"))), RunConfig, "")
    except (ValueError, yaml.YAMLError) as error:  # an option of an older version, or damage
        raise ConfigError(f"{start} ({' '.join(str(error).split())}); {advice}") from error
    old, new = resolved(before), resolved(config)
    for settings in (old, new):
        for section, name in _FREE:
            settings[section].pop(name)
        settings.pop("loggers")
        settings.pop("slurm")
        settings.pop("compile")
    grows = old["train"]["steps"] < new["train"]["steps"]
    if grows:
        old["train"]["steps"] = new["train"]["steps"]
    found = changes(old, new)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ConfigError(f"{start}: {'; '.join(found[:_SHOWN])}{more}; {advice}")
    if grows and not _has_checkpoint(folder):
        raise ConfigError(
            f"{folder}: has a policy and no checkpoint ({LAST}) from which training can continue; "
            "choose another output_dir, or start over with --fresh"
        )
    _check_data(folder, config)
    return [_more_steps(before, config)] if grows else []


def _renamed(settings: Any) -> Any:
    """Settings of a run with today's names for options of older runs."""
    train = settings.get("train") if isinstance(settings, dict) else None
    if not isinstance(train, dict):  # damaged; the check says so
        return settings
    if "rollout_episodes" in train:
        train["eval"] = {"episodes": train.pop("rollout_episodes")}
    moved = {n: train.pop(n) for n in ("accelerator", "devices", "precision") if n in train}
    return settings | {"trainer": moved} if moved else settings


def _more_steps(before: RunConfig, config: RunConfig) -> str:
    """What a larger number of steps does to the schedule."""
    old, new = before.train.steps, config.train.steps
    text = f"train.steps: {old} in the run, {new} now; the run continues"
    if config.optim.schedule == "constant":
        return text
    step = min(old, new - 1)
    peak = config.optim.lr * config.optim.lr_scale
    rates = [peak * lr_factor(config.optim, step, steps) for steps in (old, new)]
    return (
        f"{text}; the {config.optim.schedule} schedule now ends at step {new}: "
        f"the learning rate at step {step} is {rates[1]:.4g} instead of {rates[0]:.4g}"
    )


def changes(before: Any, now: Any, path: str = "") -> list[str]:
    """Each changed key with both values, for example ``train.batch_size: 8 in the run, 16 now``."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [
            change
            for key in keys
            for change in changes(
                before.get(key, _MISSING), now.get(key, _MISSING), f"{path}.{key}".lstrip(".")
            )
        ]
    return [] if before == now else [f"{path}: {before} in the run, {now} now"]


def _check_data(folder: Path, config: RunConfig) -> None:
    try:
        then = json.loads((folder / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a run of an older version
        return
    for name, now in data_record(config).items():
        before = then.get(name, now)
        if before["fingerprint"] != now["fingerprint"]:
            counts = "{samples} samples, {steps} steps"
            raise DataError(
                f"{now['folder']}: data set {name} has changed since the run began "
                f"({counts.format(**before)} then, {counts.format(**now)} now); "
                "restore the data, choose another output_dir, or start over with --fresh"
            )


def data_record(config: RunConfig) -> dict[str, Any]:
    """Data set -> folder, fingerprint and size, to notice that it changes."""
    record = {}
    for name, folder in config.data.datasets.items():
        manifest = load_manifest(folder)
        text = " ".join(s.sha256 for s in manifest.shards)  # the data module checks the splits
        record[name] = {
            "folder": folder,
            "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
            "samples": manifest.samples,
            "steps": manifest.steps,
        }
    return record


def check_writable(folder: Path) -> None:
    """Create the folder and write a file of 64 kB into it.

    Raises:
        DataError: the folder is read-only, or the disk is full.
    """
    probe = folder / "write_probe"
    with writing(folder), atomic_file(probe) as file:
        file.write(bytes(1 << 16))
    probe.unlink()


def write_start(folder: Path, config: RunConfig, notes: Sequence[str] = ()) -> None:
    """Write the configuration and the data of the run, and add the notes to its log."""
    write_text(folder / CONFIG, yaml.safe_dump(resolved(config), sort_keys=False))
    if not (folder / DATA).is_file() or not is_started(folder):
        write_json(folder / DATA, data_record(config))
    if notes:
        with (folder / LOG).open("a", encoding="utf-8") as file:
            file.writelines(f"{note}\n" for note in notes)


def remove_stale(folder: Path) -> None:
    """Remove the logs and the tokenizer of an earlier start that wrote no checkpoint."""
    if is_started(folder):
        return
    for pattern in _STALE:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
