"""``vla eval``: evaluate a saved policy in a benchmark, print and save the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from vla.config import override
from vla.errors import DataError
from vla.evaluation.report import table_rows
from vla.evaluation.rollout import evaluate, open_benchmark, read_results
from vla.evaluation.statistics import mcnemar
from vla.evaluation.video import save_videos
from vla.inference.exported_bound import open_policy
from vla.inference.realtime import Latency
from vla.policies.decoding import DecodingOptions, set_decoding
from vla.policies.execution import chosen_execution
from vla.utils.tables import print_table


def run_eval(
    policy_dir: Path,
    benchmark: Mapping[str, Any],
    tasks: Sequence[str],
    group: str | None,
    episodes: int,
    seed: int,
    out: Path | None,
    num_envs: int,
    overrides: list[str],
    robot: str | None = None,
    compare_to: Path | None = None,
    decoding: DecodingOptions | None = None,
    execution: Mapping[str, Any] | None = None,
    latency: Latency | None = None,
) -> None:
    """Closed-loop evaluation with a table; with ``out`` also JSON, contact sheet and animation.

    Args:
        benchmark: configuration of the benchmark (empty: the one that the policy's data was
            recorded in).
        tasks, group: task ids, or a group of tasks (neither: the default tasks).
        compare_to: ``results.json`` of another policy on the same episodes (McNemar's test).
        decoding: changes of the policy's plans and sampling.
        execution: options of ``chosen_execution``.
        latency: see ``evaluate``.

    Raises:
        DataError: no benchmark is named, and the policy's data was not recorded in one.
        ConfigError: the policy cannot decode or execute its chunks in this way.
    """
    theirs = read_results(compare_to) if compare_to else None
    policy = open_policy(policy_dir, robot=robot)
    set_decoding(policy, decoding)
    how = chosen_execution(policy.spec, **(execution or {}))
    if latency is not None:
        latency.check(how, policy.spec)
    config = override(dict(benchmark) or policy.spec.benchmark, overrides)
    if "name" not in config:
        raise DataError(
            f"{policy_dir}: its data was not recorded in a benchmark; "
            "name one with --benchmark, or a gymnasium environment with --env"
        )
    simulator = open_benchmark(config, policy.spec.cameras)
    chosen = simulator.select(tasks, group)
    path = out / "results.json" if out else None
    results, videos = evaluate(
        policy,
        simulator,
        chosen,
        episodes,
        path,
        num_envs,
        videos=12 if out else 0,
        seed=seed,
        execution=how,
        latency=latency,
    )
    print_table(table_rows({str(policy_dir): results}), f"{simulator.name}, seeds from {seed}")
    console = Console()
    for name, share in simulator.summarise(results).items():
        console.print(f"{name}: {100 * share:.1f} % (mean over its columns)")
    if any(r.plans for r in results):
        planned = sum(bool(plan) for r in results for plan in r.plans)
        steps = sum(r.steps for r in results)
        console.print(f"the policy followed a plan at {planned} of {steps} steps")
    if theirs is not None:
        m = mcnemar(results, theirs)
        console.print(
            f"paired with {compare_to}: {m['only_ours']} episodes succeed only here, "
            f"{m['only_theirs']} only there, p = {m['p']:.3g} (exact McNemar test)"
        )
    if out:
        for file in save_videos(videos, results, out / "rollouts"):
            console.print(f"wrote {file}")
