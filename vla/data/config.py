"""Options of the training data."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from vla.config import check_ranges
from vla.data.augment import AugmentConfig


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

    datasets: dict[str, str]  # name -> folder of packed shards
    # Name -> sampling weight, at least 0; the share of image rows is proportional to it.
    sampling_weights: dict[str, float]
    window: WindowConfig = field(default_factory=WindowConfig)  # frames and actions per sample
    # Data set -> name of its robot (default: the data set's name). Data sets of one robot share
    # the action space and the statistics.
    robots: dict[str, str] = field(default_factory=dict)
    # Data set -> its cameras, in order (default: ``window.cameras``). []: none, for a policy that
    # uses the state alone.
    cameras: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Data sets with absolute actions that are learned as differences to the current state. An
    # action dimension and its state dimension have the same name.
    relative: tuple[str, ...] = ()
    # Random changes of robot images, only in training.
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    shuffle: int = 4000  # windows in the shuffle buffer of each data set, at least 1
    workers: int = 0  # loader processes; 0: load in the training process (best on few cores)

    def __post_init__(self) -> None:
        check_ranges(self, shuffle=(1, inf), workers=(0, inf))
