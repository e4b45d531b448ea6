"""The plan of a ladder: its runs, their order, and the runs that are done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, Literal

from vla.config import check_ranges, load_config
from vla.errors import ConfigError
from vla.training.config import Cluster
from vla.utils.csv_tables import read_table, write_table

COLUMNS = (
    "run",
    "size",
    "axis",
    "data",
    "seed",
    "parameters",
    "parameters_without_embeddings",
    "flops",
    "robot_samples",
    "samples",
    "demonstrations",
    "tasks",
    "val_loss_robot",
    "val_loss_web",
    "action_token_accuracy",
    "task",
    "episodes",
    "wins",
    "seconds",
)


@dataclass(frozen=True)
class Axis:
    """Runs of one size that vary something else, for example the number of tasks."""

    size: str  # one of the ladder's sizes
    levels: dict[str, list[str]]  # name -> ``key=value`` changes of ``run``, at least one


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
    # What the amounts of data are, D of the law: robot samples seen in training, or distinct
    # demonstrations in the training data.
    amount: Literal["samples", "demonstrations"] = "samples"
    # Name -> further runs, in the table and a figure of their own, not in the law.
    axes: dict[str, Axis] = field(default_factory=dict)
    # YAML of a run that comes first for every size and seed; its policy initialises ``run``.
    pretrain: str | None = None
    # Seeds of the cheaper runs; expensive runs have the first one only.
    seeds: list[int] = field(default_factory=lambda: [0])
    cheap_share: float = 0.5  # share of (size, data), by FLOPs, that has all seeds, 0 to 1
    episodes: int = 50  # evaluation episodes of every task; 0: no rollouts
    # Task ids or groups of the benchmark; empty: its default tasks. A run with ``data.max_tasks``
    # is evaluated on those whose instructions it has learned.
    tasks: list[str] = field(default_factory=list)
    workers: int | None = None  # as in ``vla eval``: processes with one environment each
    evaluation_seconds: float = 0.0  # of the evaluation of a run, for the predicted time
    robot: str = "robot"  # data set whose validation loss is fitted
    web: str = "web"  # data set whose validation loss is recorded as ``val_loss_web``
    rounds: int = 200  # bootstrap rounds of the 95 % bands, at least 1
    # Ray cluster of ``--launcher ray``: auto (of this machine, or RAY_ADDRESS), host:6379,
    # ray://host:10001, or local (a temporary one).
    ray_address: str = "auto"
    # Resources with ``--launcher slurm`` or ``ray``.
    slurm: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        check_ranges(self, rounds=(1, inf), episodes=(0, inf), cheap_share=(0, 1))
        check_ranges(self, workers=(0, inf), evaluation_seconds=(0, inf))

    def amounts(self, size: str) -> dict[str, list[str]]:
        """Name of an amount of data, or level of an axis, of a size -> changes of ``run``."""
        own = [axis.levels for axis in self.axes.values() if axis.size == size]
        return self.data | {name: changes for levels in own for name, changes in levels.items()}

    def axis_of(self, level: str) -> str:
        """The axis that has a level; "data" for an amount of data."""
        return next((name for name, axis in self.axes.items() if level in axis.levels), "data")


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
    axis: str = "data"  # what ``data`` is a level of
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
        ConfigError: see ``vla.config``; or fewer than two sizes, no data, no seeds, a seed that
            is there twice, or an axis with an unknown size or a name that is taken.
    """
    config: ScaleConfig = load_config(path, overrides, ScaleConfig)
    if len(config.sizes) < 2 or not config.data or not config.seeds:
        raise ConfigError(
            f"{path}: a ladder needs at least two sizes, one amount of data and one seed"
        )
    if len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"{path}: seeds: expected different ones, got {config.seeds}")
    taken = list(config.data)
    for name, axis in config.axes.items():
        if axis.size not in config.sizes:
            raise ConfigError(f"{path}: axes.{name}.size {axis.size!r}: expected one of sizes")
        for level in axis.levels:
            if level in taken or name == "data":
                raise ConfigError(
                    f"{path}: axes.{name}: data or another axis has this name already: "
                    f"{level if level in taken else name}"
                )
        taken += axis.levels
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
            path, axis = str(folder / config.run), config.axis_of(data)
            sweep_run = SweepRun("run", size, data, seed, path, (), axis, start)
            home = f"output_dir={config.runs}/{sweep_run.name}"
            init = [f"init_from={start}"] if start else []
            own = config.amounts(size)[data]
            found.append(replace(sweep_run, overrides=(*changes, *own, *init, home)))
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
