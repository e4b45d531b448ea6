"""The training run, as a numbered list."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from vla.callbacks import Best, Keep, Monitor, Provenance, RngState, StreamPosition
from vla.config import ConfigError, Slot, build, check, load_config
from vla.contract import Contract, library_versions
from vla.data.manifest import action_space, load_manifest, pooled, widest
from vla.data.module import DataConfig, Streams, sample_chunks
from vla.data.pipeline import seen_by
from vla.data.relative import relative_dims, relative_statistics
from vla.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.hold import held
from vla.optim import OptimConfig
from vla.provenance import FILE
from vla.registry import Stopped
from vla.rollout_film import RolloutFilm
from vla.saving import plain, save_policy, start_from


@dataclass(frozen=True)
class TrainConfig:
    """steps: optimiser steps; batch_size: image rows a step; log_every, val_every, save_every: steps; val_windows: windows of each data
    set a validation looks at; patience: stop after so many validations without a better ``watch`` and keep the best weights (0: never); rollouts: tabletop episodes a skill at each validation, filmed for TensorBoard; threads: CPU threads (0: as torch chooses); precision: Lightning's name, never bf16 on a CPU by default."""

    steps: int = 1000
    batch_size: int = 16
    seed: int = 0
    log_every: int = 50
    val_every: int = 500
    save_every: int = 250
    val_windows: int = 200
    rollouts: int = 0
    patience: int = 0
    watch: str = "val/loss"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    threads: int = 0


@dataclass(frozen=True)
class RunConfig:
    """One training run: which policy, on which data, how long. ``run``: folder of its results; ``init``: a saved policy whose weights it
    starts from (a web-pretrained one, say; the action head may differ)."""

    policy: Annotated[dict[str, Any], Slot("policy")]
    data: DataConfig
    run: str
    init: str | None = None
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)


def make_contracts(config: RunConfig) -> tuple[dict[str, Contract], Counter[str]]:
    """Robot -> what the policy will see and command, from the manifests; and the words of the corpus.

    Raises:
        ConfigError: no robot data, or data sets of one robot with different action dims.
    """
    data, window = config.data, config.data.window
    manifests = {name: load_manifest(path) for name, path in data.datasets.items()}
    words: Counter[str] = Counter()
    groups: dict[str, list[str]] = {}
    for name, manifest in manifests.items():
        words.update(manifest["words"])
        if manifest["kind"] == "episode":
            groups.setdefault(data.robots.get(name, name), []).append(name)
    if not groups:
        raise ConfigError("data.datasets: no robot episodes among them; a policy needs an action space")
    contracts = {}
    for robot, names in groups.items():
        spaces = [action_space(manifests[n]) for n in names]
        first = spaces[0]
        assert first is not None
        if any(s is None or (s.names, s.units, s.binary) != (first.names, first.units, first.binary) for s in spaces):
            raise ConfigError(f"data.robots: {', '.join(names)} have different action dims, so they are not one robot ({robot})")
        origin = manifests[names[0]]["identity"]["source"]
        size = int(origin.get("size", 0))
        dims: tuple[int, ...] = ()
        seen = pooled([data.datasets[n] for n in names])
        if set(names) & set(data.relative):
            if not set(names) <= set(data.relative):
                raise ConfigError(f"data.relative: {', '.join(names)} are one robot ({robot}): name all of them or none")
            dims = relative_dims(Path(data.datasets[names[0]]), manifests[names[0]])
            seen = seen | {"relative": relative_statistics(sample_chunks(data, padded=False)[robot].numpy())}
        contracts[robot] = Contract(
            widest([s for s in spaces if s is not None]), seen_by(data.cameras.get(names[0], window.cameras), manifests[names[0]]), (size, size), window.history,
            window.horizon, seen, library_versions(), origin, relative=dims,
        )  # fmt: skip
    return contracts, words


def resolved(config: RunConfig) -> dict[str, Any]:
    """The whole configuration as plain data, for saving."""
    return plain(vars(config))


def train(config: RunConfig, progress: bool = True) -> Path:
    """Train, or continue an interrupted run in the same folder; returns the folder of the saved policy.

    Raises:
        ConfigError: the folder holds a run with another configuration.
        Busy: another process trains in the folder.
        Stopped: by Ctrl-C or SIGTERM, after the step in hand was finished and kept.
    """
    # 1. the run's folder, and whether it is the same run
    run = Path(config.run)
    saved = run / "config.yaml"
    if saved.is_file() and not _same_run(saved, config):
        raise ConfigError(f"{saved}: this folder holds a run with another configuration; choose another run= or delete it")
    if (run / "policy").is_dir():
        return run / "policy"
    run.mkdir(parents=True, exist_ok=True)
    first = getattr(rank_zero_only, "rank", 0) == 0  # of a run's processes, one a device, the first holds its folder
    with held(run) if first else nullcontext():
        return _train(config, run, progress)


def _train(config: RunConfig, run: Path, progress: bool) -> Path:
    """The run from its first step or its checkpoint, in a folder that is this process's."""
    checkpoint, saved = run / "last.ckpt", run / "config.yaml"
    if not saved.is_file():  # nothing began here, or what began never came as far as training
        shutil.rmtree(run / "tokenizer", ignore_errors=True)
    # 2. reproducibility and the machine
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*|.*LeafSpec.*")  # Lightning about its own affairs
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    lightning.seed_everything(config.train.seed, verbose=False)
    # 3. data, contracts, tokenizer
    contracts, words = make_contracts(config)
    tokenizer = run_tokenizer(config, words, run)
    # 4. policy
    policy = build(
        "policy", config.policy, contracts=contracts, tokenizer=tokenizer, optim=config.optim, steps=config.train.steps, words=words,
        chunks=sample_chunks(config.data),
    )  # fmt: skip
    if config.init and not checkpoint.is_file():
        start_from(policy, config.init)
    saved.write_text(yaml.safe_dump(resolved(config), sort_keys=False), encoding="utf-8")
    # 5. loop
    streams = Streams(config.data, config.train.batch_size, config.train.seed, config.train.val_windows)
    loggers = [
        TensorBoardLogger(str(run), name="", version="tensorboard"),
        CSVLogger(str(run), name="", version=f"csv-{len(list(run.glob('csv-*'))):04d}"),
    ]
    val_every = min(config.train.val_every, config.train.steps)
    monitor = Monitor(config.train.log_every, progress)
    best = Best(run / "best.ckpt", monitor, config.train.watch, config.train.patience)
    callbacks = [
        StreamPosition(),
        RngState(),
        Provenance(run / FILE),
        monitor,
        *([best] if config.train.patience else []),
        RolloutFilm(config.train.rollouts),
        Keep(checkpoint, config.train.save_every, val_every),
    ]
    trainer = lightning.Trainer(
        strategy="ddp_find_unused_parameters_true" if config.train.devices > 1 else "auto",  # a batch may be all robot or all web
        accelerator=config.train.accelerator, devices=config.train.devices, precision=config.train.precision,
        max_steps=config.train.steps, max_epochs=-1, val_check_interval=val_every, enable_checkpointing=False,
        check_val_every_n_epoch=None, num_sanity_val_steps=0, gradient_clip_val=config.optim.clip, logger=loggers, callbacks=callbacks,
        log_every_n_steps=config.train.log_every, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    try:
        trainer.fit(policy, datamodule=streams, ckpt_path=str(checkpoint) if checkpoint.is_file() else None, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C and SIGTERM
        raise Stopped(f"stopped at step {trainer.global_step} of {config.train.steps}; the same command continues") from None
    finally:  # Lightning does so itself unless a validation was what ended: the loader's processes would stay
        trainer.fit_loop.teardown()
    if config.train.patience and (best.stopped or trainer.global_step == config.train.steps):
        held = torch.load(best.path, map_location=policy.device, weights_only=True)["state_dict"]
        missing, _ = policy.load_state_dict(held, strict=False)  # running means come and go; weights may not
        lost = [n for n in missing if not n.startswith("metrics.")]
        if lost:
            raise RuntimeError(f"{best.path}: lacks {lost[0]}; delete {run} and train again")
    # 6. the policy, whole, by one process
    if trainer.is_global_zero:
        save_policy(policy, config.policy, run / "policy")
    return run / "policy"


def _same_run(saved: Path, config: RunConfig) -> bool:
    """Whether a folder's settings are these: all but how many threads compute it; one that came after the run began has its default there."""
    try:
        before = check(yaml.safe_load(saved.read_text(encoding="utf-8")), RunConfig, "")
    except ConfigError:  # a setting that is no more
        return False
    found = [resolved(c) for c in (before, config)]
    for settings in found:
        settings["train"].pop("threads")
    return found[0] == found[1]


def run_tokenizer(config: RunConfig, words: Counter[str], run: Path) -> Any:
    """The pretrained language model's tokenizer, or one trained on the corpus and kept with the run."""
    part = config.policy.get("decoder") or config.policy["text"]
    if config.init:
        return load_tokenizer(Path(config.init) / "tokenizer")
    if part.get("model"):
        return load_tokenizer(part["model"])
    folder = run / "tokenizer"
    if not folder.is_dir():
        temporary = run / "tokenizer.tmp"
        train_tokenizer(words, part.get("vocab_size", 2048)).save_pretrained(temporary)
        temporary.replace(folder)
    return load_tokenizer(folder)


def train_from_file(path: str, overrides: list[str], progress: bool = True) -> Path:
    """``vla train``: read, validate, train."""
    return train(load_config(path, overrides, RunConfig), progress)
