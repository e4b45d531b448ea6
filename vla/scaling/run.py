"""Carrying a ladder out: here, on SLURM (submitit) or on Ray; what is finished is skipped, what is not continues."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from vla.config import ConfigError, load_config
from vla.data.manifest import write_json
from vla.hold import shared
from vla.scaling.again import compare
from vla.scaling.ladder import Rung, ScaleConfig, finished, load_ladder, read_rows, rungs, waves, write_rows
from vla.scaling.report import show_plan, write_report


def costs(config: ScaleConfig, folder: Path, steps: int = 3) -> dict[tuple[str, str], dict[str, float]]:
    """Measured on this machine, of a run of every (size, data), and of every size's pretraining (size, ""): parameters, FLOPs, predicted seconds."""
    from vla.train import RunConfig
    from vla.zoo import measure

    found = {}
    for size, changes in config.sizes.items():
        kinds = [(config.run, config.data)] + ([(config.pretrain, {"": []})] if config.pretrain else [])
        for path, amounts in kinds:
            seen = measure(str(folder / path), [*changes, *next(iter(amounts.values()))], steps)
            for data, own in amounts.items():
                count = load_config(folder / path, [*changes, *own], RunConfig).train.steps
                found[size, data] = {
                    "parameters": seen["parameters"], "flops": float(seen["flops_step"]) * count, "seconds": seen["step_s"] * count, "steps": count,
                }  # fmt: skip
    return found


def carry_out(rung: Rung, config: ScaleConfig) -> str:
    """Train one rung, measure it, and leave its rows in ``row.json`` beside its policy; returns its name."""
    from vla.evaluate import evaluate
    from vla.module import PolicyModule
    from vla.report import default_environment, read_curves
    from vla.train import RunConfig, train
    from vla.zoo import measure

    run = load_config(rung.config, list(rung.overrides), RunConfig)
    home, start = Path(run.run), time.perf_counter()
    saved = train(run, progress=True)
    if rung.stage == "pretrain" or (home / "row.json").is_file():
        return rung.name
    spent = time.perf_counter() - start  # of this call: an interrupted run's earlier part is not in it
    policy = PolicyModule.load(saved)
    curves = read_curves(home)
    cost = measure(rung.config, [o for o in rung.overrides if not o.startswith("init=")], 3)
    samples = run.train.steps * run.train.batch_size
    share = run.data.mixture[config.robot] / sum(run.data.mixture.values())
    common = {
        "run": rung.name, "size": rung.size, "data": rung.data, "seed": rung.seed, "parameters": cost["parameters"],
        "parameters_without_embeddings": cost["parameters"] - embedding_parameters(policy), "flops": f"{cost['flops_step'] * run.train.steps:.6g}",
        "robot_samples": round(samples * share), "samples": samples, "seconds": round(spent),
        "val_loss_robot": _last(curves, f"val/loss/{config.robot}"), "val_loss_web": _last(curves, f"val/loss/{config.web}"),
        "action_token_accuracy": _last(curves, "val/action_token_accuracy"),
    }  # fmt: skip
    rows = [common | {"skill": "", "episodes": 0, "wins": 0}]
    if config.episodes:
        bound = policy.robot(config.robot)
        env, known = default_environment(bound.contract)
        for skill in config.skills or known:
            results, _ = evaluate(bound, "vla/Tabletop-v0", env, config.episodes, [skill])
            rows.append(common | {"skill": skill, "episodes": len(results), "wins": sum(r.success for r in results)})
        rows = rows[1:]
    write_json(home / "row.json", rows)
    return rung.name


def _last(curves: dict[str, list[tuple[int, float]]], name: str) -> str:
    """The last point of a curve; empty where the run has no such data (a robot-only run has no web loss)."""
    return f"{curves[name][-1][1]:.6g}" if curves.get(name) else ""


def embedding_parameters(policy: Any) -> int:
    """Token embeddings of the decoder (in and out, once if tied) and position tables."""
    seen: dict[int, int] = {}
    for module in policy.decoder.modules():
        if isinstance(module, torch.nn.Embedding):
            seen[module.weight.data_ptr()] = module.weight.numel()
    out = policy.decoder.lm.get_output_embeddings()
    if out is not None:
        seen[out.weight.data_ptr()] = out.weight.numel()
    return sum(seen.values())


def collect(config: ScaleConfig, report: bool = False) -> list[dict[str, str]]:
    """Rows of finished runs into the ladder's table; rows that are there stay, with or without their run's folder. report: and what they say beside it."""
    path = Path(config.out) / config.results
    if not Path(config.runs).is_dir():
        return read_rows(path)
    with FileLock(Path(config.runs) / "results.lock"):
        rows: list[dict[str, Any]] = list(read_rows(path))
        known = finished(rows)
        for file in sorted(Path(config.runs).glob("*/row.json")):
            new = json.loads(file.read_text(encoding="utf-8"))
            rows += [r for r in new if r["run"] not in known]
        write_rows(path, rows)
        written = read_rows(path)
        if report:
            write_report(written, Path(config.out))
        return written


def submit(wave: list[Rung], config: ScaleConfig, on: str) -> Iterator[str]:
    """Names of rungs as they finish.

    Raises:
        ConfigError: an unknown place, or its package is missing.
    """
    if on == "local":
        yield from _here(wave, config)
    elif on == "ray":
        yield from _on_ray(wave, config)
    elif on in ("slurm", "debug"):  # debug: submitit's own, in this process
        yield from _on_slurm(wave, config, on)
    else:
        raise ConfigError(f"--on {on}: choose local, slurm or ray")


def _here(todo: list[Rung], config: ScaleConfig) -> Iterator[str]:
    """One after the other; the same command started twice shares them: what another process holds, or has not made yet, is left to it."""
    rung = {r.name: r for r in todo}

    def ready(name: str) -> bool:
        start = rung[name].start
        return not start or start.is_dir()  # its pretraining is done

    for name in shared(rung, Path(config.runs), ready):
        yield carry_out(rung[name], config)  # at once, where another process has finished it


def _on_slurm(wave: list[Rung], config: ScaleConfig, on: str) -> Iterator[str]:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("--on slurm: submitit is not installed; pip install 'vla[cluster]'") from error
    executor = submitit.AutoExecutor(Path(config.runs) / ".slurm", cluster=on)
    wanted = config.slurm
    executor.update_parameters(name="vla-scale", timeout_min=wanted.minutes, cpus_per_task=wanted.cpus, **wanted.options)
    if wanted.gpus:
        executor.update_parameters(gpus_per_node=wanted.gpus)
    if wanted.partition:
        executor.update_parameters(slurm_partition=wanted.partition)
    with executor.batch():
        jobs = [executor.submit(carry_out, rung, config) for rung in wave]
    for job in submitit.helpers.as_completed(jobs):
        yield job.result()


def _on_ray(wave: list[Rung], config: ScaleConfig) -> Iterator[str]:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--on ray: Ray is not installed; pip install 'vla[ray]'") from error
    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=False)
    task = ray.remote(carry_out).options(num_cpus=config.slurm.cpus, num_gpus=config.slurm.gpus, max_retries=2)
    running = [task.remote(rung, config) for rung in wave]
    while running:
        ready, running = ray.wait(running, num_returns=1)
        yield ray.get(ready[0])


def run_ladder(
    path: str, overrides: list[str], on: str = "local", dry_run: bool = False, fit_only: bool = False, again: bool = False
) -> None:
    """``vla scale``: plan, carry out, collect, fit, draw. again: every run once more in ``runs/again``, its rows in ``again.csv``, and compared instead."""
    config = committed = load_ladder(path, overrides)
    if again:
        if not read_rows(Path(config.out) / config.results):
            raise ConfigError(f"--again: {config.out}/{config.results} has no rows to compare with; without --again they are made")
        config = replace(config, results="again.csv", runs=f"{config.runs}/again")
    folder = Path(path).parent
    if not fit_only:
        cost = costs(config, folder)
        planned = rungs(config, folder, {k: v["flops"] for k, v in cost.items() if k[1]})
        done = finished(collect(config))
        todo = [r for r in planned if r.name not in done]
        needed = {(r.size, r.seed) for r in todo if r.stage == "run"}
        todo = [r for r in todo if (r.size, r.seed) in needed]
        # carried out again all the same: it is there that a start of other settings is refused
        kept = {r.name for r in todo if r.stage == "pretrain" and (Path(config.runs) / r.name / "policy").is_dir()}
        show_plan(planned, [r for r in todo if r.name not in kept], cost)
        if dry_run:
            return
        # here one after the other, cheapest first, so that every session leaves rows; elsewhere all at once that can be
        for wave in [todo] if on == "local" else waves(todo):
            for name in submit(wave, config, on):
                print(
                    f"finished {name}: {len(collect(config, report=not again))} rows in {config.out}/{config.results}", flush=True
                )
    if again:
        compare(read_rows(Path(config.out) / committed.results), collect(config), Path(config.out) / config.results)
    else:
        write_report(collect(config), Path(config.out))
