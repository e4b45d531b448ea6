"""``vla eval``: evaluate a saved policy in a benchmark, print and save the results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from vla.benchmarks.base import Benchmark, EpisodeResult
from vla.config import override
from vla.errors import ConfigError, DataError
from vla.evaluation.groups import comparison_rows, group_rows, group_summary
from vla.evaluation.report import table_rows
from vla.evaluation.results import read_results, saved_state
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.evaluation.statistics import mcnemar, summary
from vla.evaluation.video import save_videos
from vla.inference.exported_bound import open_policy
from vla.inference.realtime import Latency
from vla.policies.bound import RenamedCameras, ReplacedInstructions
from vla.policies.decoding import DecodingOptions, set_decoding
from vla.policies.execution import chosen_execution
from vla.utils.csv_tables import write_table
from vla.utils.locking import exclusive_lock
from vla.utils.notes import note
from vla.utils.tables import print_table

EXPERT = "expert"  # instead of the folder of a policy: the experts of the tasks


def run_eval(
    policy_dir: Path,
    benchmark: Mapping[str, Any],
    tasks: Sequence[str],
    group: str | None,
    episodes: int | None,
    seed: int,
    out: Path | None,
    num_envs: int,
    overrides: list[str],
    robot: str | None = None,
    compare_to: Path | None = None,
    decoding: DecodingOptions | None = None,
    execution: Mapping[str, Any] | None = None,
    latency: Latency | None = None,
    workers: int | None = None,
    cameras: Mapping[str, str] | None = None,
    shuffle_instructions: bool = False,
) -> None:
    """Closed-loop evaluation with a table; with ``out`` also JSON, contact sheet and animation.

    Args:
        policy_dir: ``EXPERT``, which is no folder, stands for the scripted experts.
        benchmark: configuration of the benchmark (empty: the one that the policy's data was
            recorded in).
        tasks, group: task ids, or a group of tasks (neither: the default tasks).
        episodes: of each task; None: as the benchmark says.
        compare_to: ``results.json`` of another policy on the same episodes (McNemar's test).
        decoding: changes of the policy's plans and sampling.
        execution: options of ``chosen_execution``.
        latency, workers: see ``evaluate``.
        cameras: camera of the policy -> name in the environment, where the two differ.
        shuffle_instructions: see ``shuffled_instructions``.

    Raises:
        DataError: no benchmark is named, and the policy's data was not recorded in one; or
            ``compare_to`` has other episodes.
        ConfigError: the policy cannot decode or execute its chunks in this way.
    """
    theirs = read_results(compare_to) if compare_to else None
    is_expert = str(policy_dir) == EXPERT and not policy_dir.exists()
    policy: Any = None if is_expert else open_policy(policy_dir, robot=robot)
    how = None
    if policy is not None:
        policy = RenamedCameras(policy, cameras) if cameras else policy
        set_decoding(policy, decoding)
        how = chosen_execution(policy.spec, **(execution or {}))
        if latency is not None:
            latency.check(how, policy.spec)
    config = override(dict(benchmark) or (policy.spec.benchmark if policy else {}), overrides)
    if "name" not in config:
        given = EXPERT if is_expert else f"{policy_dir}: its data was not recorded in a benchmark"
        raise DataError(
            f"{given}: name a benchmark with --benchmark, or a gymnasium environment with --env"
        )
    simulator = open_benchmark(config, policy.spec.cameras if policy else ())
    chosen = simulator.select(tasks, group)
    count = episodes or simulator.episodes
    if compare_to is not None and theirs is not None:
        asked = {(seed + k, task.id) for k in range(count) for task in chosen}
        if asked != {(r.seed, r.task) for r in theirs}:
            raise DataError(
                f"{compare_to}: other episodes than this evaluation has; use the same seed, tasks "
                "and number of episodes"
            )
        other = json.loads(compare_to.read_text(encoding="utf-8")).get("config", config)
        if other != config:
            note(f"{compare_to} has other options of the benchmark: {other}, here {config}")
    identity = {
        "policy": saved_state(policy_dir) if policy else EXPERT,
        "robot": robot,
        "config": config,
        "decoding": asdict(decoding) if decoding else None,
        "cameras": dict(cameras or {}),
    }
    if shuffle_instructions:
        if policy is None:
            raise ConfigError("--shuffle-instructions: the experts read no instructions")
        texts = shuffled_instructions(simulator, seed)
        policy, identity["instructions"] = ReplacedInstructions(policy, texts), texts
    with exclusive_lock(out) if out else nullcontext():
        results, videos = evaluate(
            policy,
            simulator,
            chosen,
            count,
            out / "results.json" if out else None,
            num_envs,
            videos=12 if out and policy else 0,
            seed=seed,
            execution=how,
            latency=latency,
            workers=workers,
            identity=identity,
        )
    _print_tables(simulator, str(policy_dir), results, seed)
    console = Console()
    if theirs is not None:
        m = mcnemar(results, theirs)
        console.print(
            f"paired with {compare_to}: {m['only_ours']} episodes succeed only here, "
            f"{m['only_theirs']} only there, p = {m['p']:.3g} (exact McNemar test)"
        )
    if out:
        write_table(out / "tasks.csv", _csv_rows(results))
    if out and videos:
        for file in save_videos(videos, results, out / "rollouts"):
            console.print(f"wrote {file}")


def shuffled_instructions(benchmark: Benchmark, seed: int) -> dict[str, str]:
    """Instruction -> that of another task of the benchmark, each used once.

    Raises:
        ConfigError: fewer than two tasks have an instruction of their own.
    """
    texts = list(dict.fromkeys(t.instruction for t in benchmark.tasks() if t.instruction))
    if len(texts) < 2:
        raise ConfigError(
            f"--shuffle-instructions: {benchmark.name} needs at least two tasks with fixed "
            "instructions"
        )
    order = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
    return dict(zip(order, order[1:] + order[:1], strict=True))


def _csv_rows(results: Sequence[EpisodeResult]) -> list[dict[str, Any]]:
    """One row per task; shares 0 to 1 with three digits."""
    found = summary(results)
    columns = list(dict.fromkeys(name for row in found.values() for name in row))
    return [
        {"task": task} | {c: round(row[c], 3) if c in row else "" for c in columns}
        for task, row in found.items()
    ]


def _print_tables(
    simulator: Benchmark, label: str, results: Sequence[EpisodeResult], seed: int
) -> None:
    """Success by task, by group and beside published rows."""
    print_table(table_rows({label: results}), f"{simulator.name}, seeds from {seed}")
    facts = ", ".join(f"{name} {value}" for name, value in simulator.facts().items())
    if facts:
        print(facts)
    found = group_summary(simulator, results)
    if found:
        print_table(group_rows(found), "by group (mean over its columns)")
    if any(name not in found for name in simulator.averages):
        done, tasks = len({r.task for r in results}), len(simulator.tasks())
        print(f"{done} of {tasks} tasks were evaluated; {', '.join(simulator.averages)}: need all")
    compared = comparison_rows(simulator, found, label)
    if compared:
        print_table(compared, "published results, success in %")
    if any(r.plans for r in results):
        planned = sum(bool(plan) for r in results for plan in r.plans)
        steps = sum(r.steps for r in results)
        print(f"the policy followed a plan at {planned} of {steps} steps")
