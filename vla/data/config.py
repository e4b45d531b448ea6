"""Options of the training data."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Annotated

from vla.config import Replaced, check_ranges
from vla.config.registry import nearest
from vla.data.augment import AugmentConfig
from vla.errors import ConfigError


@dataclass(frozen=True)
class WindowConfig:
    """Which part of an episode one training sample shows."""

    # Cameras in the order in which the policy gets them; empty: all cameras of the data set.
    cameras: tuple[str, ...] = ("top",)
    history: int = 1  # frames up to now, at least 1
    horizon: int = 1  # actions from now on, at least 1
    # True: an action chunk goes on after the instruction changes. False: these steps are masked,
    # like steps after the end of the episode.
    cross_instructions: bool = False
    # Instructions or questions that share one image in one sequence, at least 1. Where a sample
    # has more, some are drawn at random.
    max_texts_per_image: int = 6

    def __post_init__(self) -> None:
        check_ranges(self, history=(1, inf), horizon=(1, inf), max_texts_per_image=(1, inf))


@dataclass(frozen=True)
class DataConfig:
    """The data sets of a training run and how they are mixed."""

    # Name -> folder of packed shards; replaces the mapping of the base.
    datasets: Annotated[dict[str, str], Replaced()]
    # Name -> sampling weight, at least 0; the share of image rows is proportional to it. A data
    # set without a weight is not sampled. Replaces the mapping of the base.
    sampling_weights: Annotated[dict[str, float], Replaced()]
    window: WindowConfig = field(default_factory=WindowConfig)  # frames and actions per sample
    # Data set -> name of its robot (default: the data set's name). Data sets of one robot share
    # the action space and the statistics. Replaces the mapping of the base.
    robots: Annotated[dict[str, str], Replaced()] = field(default_factory=dict)
    # Data set -> its cameras, in order (default: ``window.cameras``). []: none, for a policy that
    # uses the state alone. Replaces the mapping of the base.
    cameras: Annotated[dict[str, tuple[str, ...]], Replaced()] = field(default_factory=dict)
    # Data sets with absolute actions that are learned as differences to the current state. An
    # action dimension and its state dimension have the same name.
    relative: tuple[str, ...] = ()
    # Training demonstrations of each task, at random; null: all. A larger number includes those of
    # a smaller one. A task is an instruction. Validation data and action statistics stay whole.
    max_episodes_per_task: int | None = None
    # Tasks in training and validation, at random; null: all. A larger number includes those of a
    # smaller one.
    max_tasks: int | None = None
    subset_seed: int = 0  # seed of the demonstrations and tasks that are used
    # Random changes of robot images, only in training.
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    shuffle: int = 4000  # windows in the shuffle buffer of each data set, at least 1
    workers: int = 0  # loader processes; 0: load in the training process (best on few cores)

    def __post_init__(self) -> None:
        check_ranges(self, shuffle=(1, inf), workers=(0, inf), subset_seed=(0, inf))
        for name in ("max_episodes_per_task", "max_tasks"):
            if getattr(self, name) is not None:
                check_ranges(self, **{name: (1, inf)})


def check_names(config: DataConfig) -> None:
    """Check that every option about a data set names one of ``datasets``.

    Raises:
        ConfigError: an unknown name, with the nearest data set.
    """
    for option in ("sampling_weights", "robots", "cameras", "relative"):
        for name in getattr(config, option):
            if name not in config.datasets:
                raise ConfigError(
                    f"data.{option}.{name}: data.datasets has no such data set"
                    f"{nearest(name, config.datasets)}"
                )
