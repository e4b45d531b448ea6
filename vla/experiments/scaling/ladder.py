"""The plan of a ladder: its runs, their order, and the runs that are done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vla.config import load_config
from vla.errors import ConfigError
from vla.utils.csv_tables import read_table, write_table

COLUMNS = (
    "run",
    "size",
    "data",
    "seed",
    "parameters",
    "parameters_without_embeddings",
    "flops",
    "robot_samples",
    "samples",
    "val_loss_robot",
    "val_loss_web",
    "action_token_accuracy",
    "task",
    "episodes",
    "wins",
    "seconds",
)


@dataclass(frozen=True)
class Cluster:
    """Resources of a run on SLURM or Ray."""

    partition: str | None = None  # SLURM partition; null: the cluster's default
    minutes: int = 600  # time limit of a run
    cpus: int = 4  # CPU cores of a run
    gpus: int = 0  # GPUs of a run
    # Further parameters of submitit's ``update_parameters``.
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScaleConfig:
    """A ladder: runs of several sizes and amounts of data."""

    run: str  # YAML of one training run, relative to the ladder's file
    # Size -> ``key=value`` changes of ``run`` and ``pretrain``; at least two, smallest first.
    sizes: dict[str, list[str]]
    # Amount of data -> ``key=value`` changes of ``run``; at least one.
    data: dict[str, list[str]]
    out: str  # folder of the table, fit and figures
    runs: str  # folder of the training runs
    results: str = "results.csv"  # file name of the table in ``out``
    # YAML of a run that comes first for every size and seed; its policy initialises ``run``.
    pretrain: str | None = None
    # Seeds of the cheaper runs; expensive runs have the first one only.
    seeds: list[int] = field(default_factory=lambda: [0])
    cheap_share: float = 0.5  # share of (size, data), by FLOPs, that has all seeds, 0 to 1
    episodes: int = 50  # evaluation episodes of every task; 0: no rollouts
    # Task ids or groups of the benchmark; empty: its default tasks.
    tasks: list[str] = field(default_factory=list)
    robot: str = "robot"  # data set whose validation loss is fitted
    web: str = "web"  # data set whose validation loss is recorded as ``val_loss_web``
    # Resources with ``--launcher slurm`` or ``ray``.
    slurm: Cluster = field(default_factory=Cluster)


@dataclass(frozen=True)
class SweepRun:
    """One training run of a ladder.

    A ``pretrain`` run has no data; its policy initialises the runs of its size and seed.
    """

    stage: Literal["pretrain", "run"]
    size: str
    data: str
    seed: int
    config: str
    overrides: tuple[str, ...]
    start: Path | None = None  # the policy that initialises the run

    @property
    def name(self) -> str:
        """Unique in the ladder."""
        return "-".join(
            [self.stage, self.size, *([self.data] if self.data else []), f"s{self.seed}"]
        )


def load_ladder(path: str | Path, overrides: list[str]) -> ScaleConfig:
    """The checked configuration of a ladder.

    Raises:
        ConfigError: see ``vla.config``; or fewer than two sizes, no data, or no seeds.
    """
    config: ScaleConfig = load_config(path, overrides, ScaleConfig)
    if len(config.sizes) < 2 or not config.data or not config.seeds:
        raise ConfigError(
            f"{path}: a ladder needs at least two sizes, one amount of data and one seed"
        )
    return config


def sweep_runs(
    config: ScaleConfig, folder: Path, flops: Mapping[tuple[str, str], float]
) -> list[SweepRun]:
    """Every run, cheapest first, pretraining before the runs that need it.

    ``flops``: of a run of (size, data).
    """
    order = sorted(flops, key=lambda k: flops[k])
    cheap = set(order[: round(len(order) * config.cheap_share)])
    found: list[SweepRun] = []
    for size, data in order:
        for seed in config.seeds if (size, data) in cheap else config.seeds[:1]:
            changes = [*config.sizes[size], f"train.seed={seed}"]
            start = None
            if config.pretrain:
                first = SweepRun("pretrain", size, "", seed, str(folder / config.pretrain), ())
                home = f"{config.runs}/{first.name}"
                first = replace(first, overrides=(*changes, f"output_dir={home}"))
                start = Path(home) / "policy"
                if first not in found:
                    found.append(first)
            sweep_run = SweepRun("run", size, data, seed, str(folder / config.run), (), start)
            home = f"output_dir={config.runs}/{sweep_run.name}"
            init = [f"init_from={start}"] if start else []
            found.append(replace(sweep_run, overrides=(*changes, *config.data[data], *init, home)))
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a ladder's table; empty if there is no file.

    Raises:
        ConfigError: the file has other columns.
    """
    return read_table(path, COLUMNS)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a ladder's table atomically, sorted by run and task."""
    write_table(path, sorted(rows, key=lambda r: (str(r["run"]), str(r["task"]))), COLUMNS)


def finished(rows: list[dict[str, str]]) -> set[str]:
    """Names of the runs with rows."""
    return {r["run"] for r in rows}


def stages(todo: list[SweepRun]) -> Iterator[list[SweepRun]]:
    """Runs that may execute at the same time: pretraining first."""
    for stage in ("pretrain", "run"):
        stage_runs = [r for r in todo if r.stage == stage]
        if stage_runs:
            yield stage_runs
