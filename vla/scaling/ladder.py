"""The plan: which runs a ladder has, what each costs, and which are done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vla.config import ConfigError, load_config
from vla.tables import read_table, write_table

COLUMNS = (
    "run", "size", "data", "seed", "parameters", "parameters_without_embeddings", "flops", "robot_samples", "samples", "val_loss_robot",
    "val_loss_web", "action_token_accuracy", "skill", "episodes", "wins", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """Where runs go, with ``--on slurm``: partition and limits as ``sbatch`` knows them; options: further submitit parameters."""

    partition: str | None = None
    minutes: int = 600
    cpus: int = 4
    gpus: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScaleConfig:
    """A ladder.

    run: YAML of one training run, which every size and amount of data changes; pretrain: YAML of a run that comes first, once a size and seed, and
    whose policy the others start from; sizes, data: name -> ``key=value`` changes (sizes smallest first; data: of ``run`` alone); seeds: of all runs
    whose FLOPs are in the cheaper ``cheap_share``, others have the first one only; episodes, skills: of the closed loop (0: none); robot, web: names of
    the data sets whose losses count; out: folder of results and figures; runs: folder of the runs themselves; results: name of the table in ``out``.
    """

    run: str
    sizes: dict[str, list[str]]
    data: dict[str, list[str]]
    out: str
    runs: str
    results: str = "results.csv"
    pretrain: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    cheap_share: float = 0.5
    episodes: int = 50
    skills: list[str] = field(default_factory=list)
    robot: str = "robot"
    web: str = "web"
    slurm: Cluster = field(default_factory=Cluster)


@dataclass(frozen=True)
class Rung:
    """One training run of a ladder. stage: ``pretrain`` (its policy is what the others of its size and seed start from) or ``run``."""

    stage: Literal["pretrain", "run"]
    size: str
    data: str
    seed: int
    config: str
    overrides: tuple[str, ...]
    start: Path | None = None  # the policy it starts from

    @property
    def name(self) -> str:
        """Unique in the ladder."""
        return "-".join([self.stage, self.size, *([self.data] if self.data else []), f"s{self.seed}"])


def load_ladder(path: str | Path, overrides: list[str]) -> ScaleConfig:
    """Read and check a ladder; paths of run YAMLs are relative to it.

    Raises:
        ConfigError: see ``vla.config``; or there are fewer than two sizes, no data or no seeds.
    """
    config: ScaleConfig = load_config(path, overrides, ScaleConfig)
    if len(config.sizes) < 2 or not config.data or not config.seeds:
        raise ConfigError(f"{path}: a ladder needs at least two sizes, one amount of data and one seed")
    return config


def rungs(config: ScaleConfig, folder: Path, flops: Mapping[tuple[str, str], float]) -> list[Rung]:
    """Every run, cheapest first, what is started from before what starts from it. flops: of a run of (size, data)."""
    order = sorted(flops, key=lambda k: flops[k])
    cheap = set(order[: round(len(order) * config.cheap_share)])
    found: list[Rung] = []
    for size, data in order:
        for seed in config.seeds if (size, data) in cheap else config.seeds[:1]:
            changes = [*config.sizes[size], f"train.seed={seed}"]
            start = None
            if config.pretrain:
                first = Rung("pretrain", size, "", seed, str(folder / config.pretrain), ())
                home = f"{config.runs}/{first.name}"
                first = replace(first, overrides=(*changes, f"run={home}"))
                start = Path(home) / "policy"
                if first not in found:
                    found.append(first)
            rung = Rung("run", size, data, seed, str(folder / config.run), (), start)
            home = f"run={config.runs}/{rung.name}"
            init = [f"init={start}"] if start else []
            found.append(replace(rung, overrides=(*changes, *config.data[data], *init, home)))
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a ladder's table; none if there is no file.

    Raises:
        ConfigError: other columns than a ladder's.
    """
    return read_table(path, COLUMNS)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Whole or not at all, in a fixed order."""
    write_table(path, sorted(rows, key=lambda r: (str(r["run"]), str(r["skill"]))), COLUMNS)


def finished(rows: list[dict[str, str]]) -> set[str]:
    """Names of runs that have their rows."""
    return {r["run"] for r in rows}


def waves(todo: list[Rung]) -> Iterator[list[Rung]]:
    """What may run at the same time: first what others start from."""
    for stage in ("pretrain", "run"):
        wave = [r for r in todo if r.stage == stage]
        if wave:
            yield wave
