"""Verbs for data: pack, record, check, replay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import (
    BenchmarkName,
    BenchmarkOverrides,
    Cameras,
    EnvironmentId,
    Json,
    PackedData,
    Simulator,
    Tasks,
    VideoFolder,
    benchmark_config,
    camera_names,
    named_benchmark,
    split_names,
)

app = typer.Typer(no_args_is_help=True, help="Maintain packed data.")


def pack(
    source: Annotated[
        Path,
        typer.Argument(
            help="robot data (LeRobot, RLDS, HDF5, ...), image-text data, or a YAML with a source"
        ),
    ],
    out: Annotated[Path, typer.Argument(help="folder for the shards")],
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(
            help="changes as key=value, for example source.mapping.size=128 shard_size=500"
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="parallel processes; the result is the same for any number")
    ] = 0,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="pack an incomplete download without its gaps")
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="leave out bad episodes; list them in quarantine.json"),
    ] = False,
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="share of bad episodes above which --skip-bad fails")
    ] = 0.1,
    ray: Annotated[
        Optional[str],
        typer.Option(
            help="pack on a Ray cluster: its address, or 'local' (pip install 'vla\\[ray]')"
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="replace a finished pack"),
    ] = False,
    to: Annotated[
        Optional[str],
        typer.Option(help="'lerobot': convert packed data to a LeRobot 3.0 folder instead"),
    ] = None,
) -> None:
    """Write robot or web data as shards with a manifest. A repeated call continues."""
    from vla.data.pack import pack_from
    from vla.data.summary import print_summary

    if to is not None:
        if to != "lerobot":
            raise typer.BadParameter(f"--to {to}: the only export format is 'lerobot'")
        from vla.data.export_lerobot import to_lerobot

        return typer.echo(f"wrote {to_lerobot(source, out)}")
    pack_from(source, out, overrides or [], workers, skip_bad, skip_missing, max_bad, ray, force)
    print_summary(out)


def record(
    benchmark: Simulator,
    out: Annotated[Path, typer.Argument(help="folder for the shards")],
    overrides: BenchmarkOverrides = None,
    episodes: Annotated[int, typer.Option(min=1, max=100_000, help="episodes per task")] = 50,
    task: Tasks = None,
    workers: Annotated[
        Optional[int],
        typer.Option(
            min=0,
            help="parallel processes (default: one per CPU); the result is the same for any number",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of the first episode of every task")] = 0,
    force: Annotated[bool, typer.Option("--force", help="replace a finished recording")] = False,
) -> None:
    """Record successful episodes of a benchmark's experts as packed data.

    A repeated call continues. Evaluation uses other seeds.

    Example: vla record metaworld/mt50 data/mt50 --episodes 50
    """
    from vla.benchmarks.recording import record as record_episodes
    from vla.data.summary import print_summary

    workers = (os.cpu_count() or 1) if workers is None else workers
    name, options = named_benchmark(benchmark, overrides)
    record_episodes(name, out, episodes, split_names(task), workers, seed, options, force)
    print_summary(out)


def doctor(
    data: Annotated[Path, typer.Argument(help="packed data, or a robot data set")],
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(help="mapping of a robot data set, for example source.mapping.fps=5"),
    ] = None,
    policy: Annotated[
        Optional[Path], typer.Option(help="a saved policy whose statistics are compared")
    ] = None,
    as_json: Json = False,
    html: Annotated[
        Optional[Path], typer.Option(help="write a page with plots and a contact sheet")
    ] = None,
) -> None:
    """Find defects in robot data. Exit code 0: notes at most; 1: warnings; 2: errors."""
    from vla.doctor.report import run_doctor

    raise typer.Exit(run_doctor(data, overrides or [], policy, as_json, html))


def replay(
    data: PackedData,
    overrides: BenchmarkOverrides = None,
    benchmark: BenchmarkName = None,
    env: EnvironmentId = None,
    episodes: Annotated[int, typer.Option(min=1, help="number of recorded episodes")] = 20,
    out: VideoFolder = None,
    task: Annotated[Optional[str], typer.Option(help="task of every episode")] = None,
    seed: Annotated[
        Optional[int],
        typer.Option(min=0, help="seed of the first episode; the next has seed + 1"),
    ] = None,
    starts: Annotated[
        Optional[Path],
        typer.Option(help="CSV file with the columns key,task,seed: a row for each such episode"),
    ] = None,
    camera: Cameras = None,
) -> None:
    """Execute recorded actions in an environment, to check their units, signs and order.

    Without options, task and seed are those of the recording; a recording without a task has the
    task with its instruction.
    """
    from vla.evaluation.replay import run_replay

    run_replay(
        data,
        benchmark_config(benchmark, env),
        episodes,
        out,
        overrides or [],
        task,
        seed,
        starts,
        camera_names(camera),
    )


@app.command()
def split(
    directory: Annotated[Path, typer.Argument(help="folder of packed data")],
    val_fraction: Annotated[
        Optional[float],
        typer.Option(min=0, max=1, help="draw a new split with this share of validation samples"),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option(help="draw a new split with this seed (default: 0)")
    ] = None,
    by: Annotated[
        Optional[str],
        typer.Option(help="strata of a new split: 'task', 'group' or 'task,group' (default)"),
    ] = None,
    val_keys: Annotated[
        Optional[Path],
        typer.Option(help="text file with the keys of the validation samples, one a line"),
    ] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="use the split that the source recorded")
    ] = False,
) -> None:
    """Show the split of packed data, or choose another one without packing again."""
    from vla.data.splits import resplit
    from vla.data.summary import print_summary

    resplit(directory, val_fraction, seed, by, val_keys, recorded)
    print_summary(directory)


@app.command()
def verify(directory: Annotated[Path, typer.Argument(help="folder of packed data")]) -> None:
    """Compare every file with its checksum. Exit code 1 if one is damaged."""
    from vla.data.verification import verify as check

    problems = check(directory)
    for line in problems:
        typer.echo(line, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{directory}: all files are intact")
