"""Train and evaluate one run of a ladder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from vla.benchmarks.base import Task
from vla.config import load_config
from vla.data.packed import open_packed
from vla.data.subset import chosen_tasks, subset_rows
from vla.errors import ConfigError
from vla.experiments.scaling.ladder import ScaleConfig, SweepRun
from vla.models.lora import count_parameters
from vla.policies.checkpoint import load_policy
from vla.training.config import RunConfig
from vla.utils.io import write_json


def execute(sweep_run: SweepRun, config: ScaleConfig) -> str:
    """Train one run, evaluate it and write its rows to ``row.json`` beside its policy.

    A repeated call continues an interrupted training or evaluation.

    Returns:
        The run's name.

    Raises:
        ConfigError: the benchmark has no such tasks; this is found before training.
    """
    from vla.training.run import train

    run = load_config(sweep_run.config, list(sweep_run.overrides), RunConfig)
    home, start = Path(run.output_dir), time.perf_counter()
    is_evaluated = sweep_run.stage == "run" and config.episodes > 0
    tasks = _tasks(run, config) if is_evaluated else []
    saved = train(run, progress=True)
    if sweep_run.stage == "pretrain" or (home / "row.json").is_file():
        return sweep_run.name
    spent = time.perf_counter() - start  # without the part before an interruption
    policy = load_policy(saved)
    common = _measured(sweep_run, run, config, policy) | {"seconds": round(spent)}
    rows = [common | {"task": "", "episodes": 0, "wins": 0}]
    if tasks:
        rows = [common | task for task in _successes(policy, tasks, home, config)]
    write_json(home / "row.json", rows)
    return sweep_run.name


def _tasks(run: RunConfig, config: ScaleConfig) -> list[Task]:
    """The tasks of the robot's benchmark on which a run is evaluated."""
    from vla.evaluation.rollout import open_benchmark

    packed = open_packed(run.data.datasets[config.robot])
    if not packed.manifest.benchmark:
        raise ConfigError(
            f"{packed.folder}: its data was not recorded in a benchmark; set episodes=0"
        )
    benchmark = open_benchmark(packed.manifest.benchmark)
    try:
        tasks = benchmark.select(config.tasks)
    except ValueError as error:
        raise ConfigError(f"tasks: {error}") from error
    if run.data.max_tasks is not None:
        learned = chosen_tasks(packed, run.data)
        tasks = [task for task in tasks if task.instruction in learned]
        if not tasks:
            raise ConfigError(
                f"tasks: none of them has an instruction among the {len(learned)} of "
                f"data.max_tasks={run.data.max_tasks} in {packed.folder}; name other tasks"
            )
    return tasks


def _successes(
    policy: Any, tasks: list[Task], home: Path, config: ScaleConfig
) -> list[dict[str, Any]]:
    """Episodes and wins of each task. Finished episodes are in ``home`` until all are."""
    from vla.evaluation.results import saved_state
    from vla.evaluation.rollout import evaluate, open_benchmark

    bound = policy.robot(config.robot)
    benchmark = open_benchmark(bound.spec.benchmark, bound.spec.cameras)
    results, _ = evaluate(
        bound,
        benchmark,
        tasks,
        config.episodes,
        home / "results.json",
        workers=config.workers,
        identity={"policy": saved_state(home / "policy"), "config": bound.spec.benchmark},
    )
    rows = []
    for task in tasks:
        own = [r.success for r in results if r.task == task.id]
        rows.append({"task": task.id, "episodes": len(own), "wins": sum(own)})
    return rows


def _measured(
    sweep_run: SweepRun, run: RunConfig, config: ScaleConfig, policy: Any
) -> dict[str, Any]:
    """The columns of a run that all its rows have.

    Steps are those until training stopped, losses those of the weights that were saved.
    """
    from vla.training.measure import measure
    from vla.training.run_folder import read_summary

    summary = read_summary(Path(run.output_dir))
    kind = "best_validation" if run.train.patience else "last_validation"
    losses, steps = summary.get(kind, {}), summary.get("steps", run.train.steps)
    cost = measure(sweep_run.config, _measurable(sweep_run), 3)
    parameters, _ = count_parameters(policy)
    samples = steps * run.train.batch_size
    share = run.data.sampling_weights[config.robot] / sum(run.data.sampling_weights.values())
    packed = open_packed(run.data.datasets[config.robot])
    rows = subset_rows(packed, run.data, "train")
    return {
        "run": sweep_run.name,
        "size": sweep_run.size,
        "axis": sweep_run.axis,
        "data": sweep_run.data,
        "seed": sweep_run.seed,
        "parameters": parameters,
        "parameters_without_embeddings": parameters - embedding_parameters(policy),
        "flops": f"{cost['flops_step'] * steps:.6g}",
        "robot_samples": round(samples * share),
        "samples": samples,
        "demonstrations": len(rows),
        "tasks": len({row.task for row in rows}),
        "val_loss_robot": _shown(losses, f"val/loss/{config.robot}"),
        "val_loss_web": _shown(losses, f"val/loss/{config.web}"),
        "action_token_accuracy": _shown(losses, "val/action_token_accuracy"),
    }


def _measurable(sweep_run: SweepRun) -> list[str]:
    """Changes of the run for its measurement, which needs the policy it starts from only if there.

    The tokenizer of ``init_from`` gives the vocabulary that the run was trained with.
    """
    here = sweep_run.start is not None and sweep_run.start.is_dir()
    return [o for o in sweep_run.overrides if here or not o.startswith("init_from=")]


def _shown(metrics: dict[str, float], name: str) -> str:
    """A metric; empty if the run has no such data, e.g. no web data."""
    return f"{metrics[name]:.6g}" if name in metrics else ""


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
