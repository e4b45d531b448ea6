"""Verbs that evaluate a saved policy: eval, eval-offline, eval-vqa."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import (
    BenchmarkName,
    BenchmarkOverrides,
    Cameras,
    DelaySteps,
    EnvironmentId,
    ExecutionHorizon,
    ExecutionMode,
    PackedData,
    Plans,
    Policy,
    Robot,
    SamplingSeed,
    Tasks,
    Temperature,
    TemporalEnsemble,
    TopK,
    VideoFolder,
    benchmark_config,
    camera_names,
    decoding_options,
    execution_options,
    split_names,
)


def evaluate(
    policy: Annotated[
        Path, typer.Argument(help="folder of a saved policy, or 'expert': the scripted experts")
    ],
    overrides: BenchmarkOverrides = None,
    benchmark: BenchmarkName = None,
    env: EnvironmentId = None,
    task: Tasks = None,
    group: Annotated[
        Optional[str], typer.Option(help="all tasks of a group, or 'all' tasks of the benchmark")
    ] = None,
    episodes: Annotated[
        Optional[int],
        typer.Option(
            min=1, max=100_000, help="episodes per task (default: 250, or as the benchmark says)"
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, help="first seed; equal seeds give equal episodes for every policy"),
    ] = 1_000_003,
    num_envs: Annotated[
        int, typer.Option(min=1, help="parallel environments, without --workers")
    ] = 50,
    workers: Annotated[
        Optional[int],
        typer.Option(
            min=0,
            help="processes with one environment each (default: 2 per CPU if the benchmark's "
            "environments are heavy, else 0: all in this process)",
        ),
    ] = None,
    out: VideoFolder = None,
    camera: Cameras = None,
    robot: Robot = None,
    compare_to: Annotated[
        Optional[Path],
        typer.Option(
            help="results.json of another policy with the same episodes: McNemar's exact test"
        ),
    ] = None,
    plan: Plans = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    sampling_seed: SamplingSeed = None,
    execution_horizon: ExecutionHorizon = None,
    temporal_ensemble: TemporalEnsemble = None,
    execution_mode: ExecutionMode = None,
    delay_steps: DelaySteps = None,
    latency_ms: Annotated[
        Optional[float],
        typer.Option(help="simulated time of a prediction; the environment steps on meanwhile"),
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="steps follow the clock at the robot's rate, one environment"),
    ] = False,
    shuffle_instructions: Annotated[
        bool,
        typer.Option(
            "--shuffle-instructions",
            help="control: the policy gets the instruction of another task in every episode",
        ),
    ] = False,
) -> None:
    """Success rates in simulation, with 95 % intervals.

    With --out, an evaluation that was stopped continues.

    With --latency-ms or --live a robot without an action holds still (a benchmark may say how; the
    default repeats its last action).

    Example: vla eval runs/my_run/policy --episodes 50 --out runs/my_eval size=128
    """
    from vla.evaluation.run import run_eval
    from vla.inference.realtime import Latency

    run_eval(
        policy,
        benchmark_config(benchmark, env),
        split_names(task),
        group,
        episodes,
        seed,
        out,
        num_envs,
        overrides or [],
        robot,
        compare_to,
        decoding_options(plan, temperature, top_k, sampling_seed),
        execution_options(execution_horizon, temporal_ensemble, execution_mode, delay_steps),
        Latency(latency_ms or 0.0, live) if live or latency_ms is not None else None,
        workers,
        camera_names(camera),
        shuffle_instructions,
    )


def evaluate_offline(
    policy: Policy,
    data: PackedData,
    split: Annotated[str, typer.Option(help="train or val")] = "val",
    episodes: Annotated[
        Optional[int],
        typer.Option(min=1, help="number of episodes, or of web questions; default: all"),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="folder for offline.json and a plot")] = None,
    robot: Robot = None,
    plan: Plans = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    sampling_seed: SamplingSeed = None,
) -> None:
    """Errors of predicted actions on recorded observations, or scores of answers on web data."""
    from vla.data.manifest import load_manifest
    from vla.evaluation.offline_report import run_offline
    from vla.evaluation.vqa import run_vqa

    if load_manifest(data).kind == "web":
        return run_vqa(policy, data, out, episodes, split, "offline.json")
    decoding = decoding_options(plan, temperature, top_k, sampling_seed)
    run_offline(policy, data, split, episodes, out, robot, decoding)


def evaluate_vqa(
    policy: Policy,
    data: Annotated[Path, typer.Argument(help="folder of packed web data")],
    questions: Annotated[int, typer.Option(min=1, help="number of questions")] = 2000,
    out: Annotated[Optional[Path], typer.Option(help="folder for vqa.json")] = None,
) -> None:
    """Scores of a policy's answers to questions about held-out web images.

    Accuracy (exact match as VQA v2 does, or a close place), VQA accuracy, ANLS, BLEU-4, ROUGE-L.
    """
    from vla.evaluation.vqa import run_vqa

    run_vqa(policy, data, out, questions)
