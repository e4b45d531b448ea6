"""Train and evaluate one run of a ladder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from vla.config import load_config
from vla.experiments.scaling.ladder import ScaleConfig, SweepRun
from vla.models.lora import count_parameters
from vla.policies.checkpoint import load_policy
from vla.utils.io import write_json


def execute(sweep_run: SweepRun, config: ScaleConfig) -> str:
    """Train one run, evaluate it and write its rows to ``row.json`` beside its policy.

    Returns:
        The run's name.
    """
    from vla.evaluation.rollout import evaluate, open_benchmark
    from vla.training.curves import read_curves
    from vla.training.measure import measure
    from vla.training.run import RunConfig, train

    run = load_config(sweep_run.config, list(sweep_run.overrides), RunConfig)
    home, start = Path(run.output_dir), time.perf_counter()
    saved = train(run, progress=True)
    if sweep_run.stage == "pretrain" or (home / "row.json").is_file():
        return sweep_run.name
    spent = time.perf_counter() - start  # without the part before an interruption
    policy = load_policy(saved)
    curves = read_curves(home)
    cost = measure(sweep_run.config, _measurable(sweep_run), 3)
    parameters, _ = count_parameters(policy)
    samples = run.train.steps * run.train.batch_size
    share = run.data.sampling_weights[config.robot] / sum(run.data.sampling_weights.values())
    common = {
        "run": sweep_run.name,
        "size": sweep_run.size,
        "data": sweep_run.data,
        "seed": sweep_run.seed,
        "parameters": parameters,
        "parameters_without_embeddings": parameters - embedding_parameters(policy),
        "flops": f"{cost['flops_step'] * run.train.steps:.6g}",
        "robot_samples": round(samples * share),
        "samples": samples,
        "seconds": round(spent),
        "val_loss_robot": _last(curves, f"val/loss/{config.robot}"),
        "val_loss_web": _last(curves, f"val/loss/{config.web}"),
        "action_token_accuracy": _last(curves, "val/action_token_accuracy"),
    }
    rows = [common | {"task": "", "episodes": 0, "wins": 0}]
    if config.episodes:
        bound = policy.robot(config.robot)
        benchmark = open_benchmark(bound.spec.benchmark, bound.spec.cameras)
        for task in benchmark.select(config.tasks):
            results, _ = evaluate(bound, benchmark, [task], config.episodes)
            wins = sum(r.success for r in results)
            rows.append(common | {"task": task.id, "episodes": len(results), "wins": wins})
        rows = rows[1:]
    write_json(home / "row.json", rows)
    return sweep_run.name


def _measurable(sweep_run: SweepRun) -> list[str]:
    """Changes of the run for its measurement, which needs the policy it starts from only if there.

    The tokenizer of ``init_from`` gives the vocabulary that the run was trained with.
    """
    here = sweep_run.start is not None and sweep_run.start.is_dir()
    return [o for o in sweep_run.overrides if here or not o.startswith("init_from=")]


def _last(curves: dict[str, list[tuple[int, float]]], name: str) -> str:
    """Last value of a metric; empty if the run has no such data, e.g. no web data."""
    return f"{curves[name][-1][1]:.6g}" if curves.get(name) else ""


def embedding_parameters(policy: Any) -> int:
    """Parameters of the decoder's token embeddings (tied ones once) and position tables."""
    sizes: dict[int, int] = {}
    for module in policy.decoder.modules():
        if isinstance(module, torch.nn.Embedding):
            sizes[module.weight.data_ptr()] = module.weight.numel()
    out = policy.decoder.lm.get_output_embeddings()
    if out is not None:
        sizes[out.weight.data_ptr()] = out.weight.numel()
    return sum(sizes.values())
