"""Benchmark episodes during training: success, scores and a video in TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from vla.benchmarks.base import Benchmark, EpisodeResult, Task
from vla.data.manifest import load_manifest
from vla.data.windows import camera_names
from vla.errors import ConfigError
from vla.evaluation.environment import check_actions
from vla.evaluation.groups import group_summary
from vla.evaluation.results import read_results
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.evaluation.slots import try_environment
from vla.evaluation.video import animation
from vla.training.config import RunConfig
from vla.training.log_video import log_video
from vla.training.run_folder import EVAL
from vla.utils.notes import note

_VIDEOS = 8


def check_benchmark(config: RunConfig) -> None:
    """Refuse a benchmark or tasks that a run cannot be evaluated on, before its first step.

    One environment is opened. If that fails for the benchmark of the data, which the options do
    not name, the run has no evaluation, see ``BenchmarkEval``.

    Raises:
        ConfigError: unknown benchmark, option or task, or the named benchmark cannot be opened.
        DataError: the actions do not fit the benchmark.
    """
    options = config.train.eval
    found = _robot_data(config) if options.episodes else None
    if found is None:
        return
    robot, described, cameras, manifest = found
    try:
        benchmark = open_benchmark(described, cameras)
    except ConfigError:
        if options.benchmark:
            raise
        return  # the data's benchmark is of a plug-in that is not installed here
    tasks = _select(benchmark, options.tasks)
    if options.benchmark:
        space, recorded = manifest.action_space, manifest.statistics.get("actions")
        check_actions(space, benchmark.action_space, benchmark.name, f"robot {robot}", recorded)
        try:
            try_environment(benchmark, tasks[0])
        except Exception as error:  # libraries of simulators raise anything
            raise ConfigError(
                f"train.eval.benchmark: {benchmark.name} cannot be opened ({_line(error)})"
            ) from error


def _robot_data(config: RunConfig) -> tuple[str, dict[str, Any], tuple[str, ...], Any] | None:
    """Robot, benchmark, cameras and manifest of the data that is evaluated; None: no data."""
    named = config.train.eval.described
    for name, folder in config.data.datasets.items():
        manifest = load_manifest(folder)
        described = dict(named) or dict(manifest.benchmark or {})
        if manifest.kind == "episode" and described:
            cameras = camera_names(config.data, name, manifest)
            robot = config.data.robots.get(name, name)
            return robot, described, cameras, manifest
    return None


def _select(benchmark: Benchmark, names: Sequence[str]) -> list[Task]:
    try:
        return benchmark.select(names)
    except ValueError as error:
        raise ConfigError(f"train.eval.tasks: {error}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class BenchmarkEval(lightning.Callback):
    """Evaluates as ``train.eval`` says after validations, on rank 0; logs ``eval/...`` metrics
    and a video.

    The robot is the first one whose data was recorded in a benchmark, or the first one if the
    options name a benchmark. Without such a robot there is no evaluation. If the benchmark of the
    data cannot be opened here, a line says so before the first step.

    Finished episodes and the results of every evaluation are in the run's folder ``training_eval``.
    After Ctrl-C or SIGTERM the evaluation stops at once; the continued run completes it first.
    If an environment fails, the checkpoint is written before the run ends with this error.

    Args:
        config: of the run.
        saver: the callback whose ``stop_requested`` says that a signal came, and which writes a
            checkpoint and raises its ``failure``.
        progress: show the progress of long rollouts in log files.
    """

    def __init__(self, config: RunConfig, saver: Any, progress: bool = False) -> None:
        self.options, self.saver, self.progress = config.train.eval, saver, progress
        self.folder = Path(config.output_dir) / EVAL
        self.found = _robot_data(config) if self.options.episodes else None
        self.is_pending = False  # the evaluation of the checkpoint's step is not complete

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"pending": self.is_pending}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.is_pending = bool(state_dict["pending"])

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Open one environment of the data's benchmark; go without evaluation if that fails."""
        if trainer.global_rank or not self.options.episodes or self.options.benchmark:
            return
        if self.found is None:
            note(
                "no rollouts during training: the data was not recorded in a benchmark; "
                "train.eval.benchmark names one"
            )
            return
        try:
            benchmark = self._open()
            try_environment(benchmark, _select(benchmark, self.options.tasks)[0])
        except Exception as error:  # libraries of simulators raise anything
            self.found = None
            text = f"no rollouts during training: the benchmark cannot be opened ({_line(error)})"
            print(text, file=sys.stderr, flush=True)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Complete an evaluation that was interrupted at the step of the checkpoint."""
        if self.is_pending:
            self._evaluate(trainer, pl_module)
        if self.saver.failure is not None:  # the checkpoint has this step already
            raise self.saver.failure

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluate if it is time."""
        if trainer.global_step % max(1, self.options.every) == 0:
            self._evaluate(trainer, pl_module)

    def _open(self) -> Benchmark:
        assert self.found is not None
        return open_benchmark(self.found[1], self.found[2])

    def _evaluate(self, trainer: Any, policy: Any) -> None:
        if self.found is None or trainer.global_rank:
            return
        self.is_pending = True
        benchmark, out = self._open(), self.folder / f"step-{trainer.global_step:08d}.json"
        videos: list[list[np.ndarray]] = []
        if out.is_file():  # the run continues from an earlier step
            results = read_results(out)
        else:
            try:
                results, videos = evaluate(
                    policy.robot(self.found[0]),
                    benchmark,
                    _select(benchmark, self.options.tasks),
                    self.options.episodes,
                    out,
                    videos=_VIDEOS,
                    progress=self.progress,
                    workers=self.options.workers,
                    identity={"step": trainer.global_step, "config": self.found[1]},
                    stop=lambda: self.saver.stop_requested,
                )
            except KeyboardInterrupt:
                if not self.saver.stop_requested:  # a second signal, or one before training
                    raise
                return  # the saver writes the checkpoint and ends the run
            except Exception as error:  # libraries of simulators raise anything
                text = (
                    f"train.eval: the evaluation of step {trainer.global_step} failed. The same "
                    "command repeats it; with train.eval.episodes=0 training continues without it"
                )
                print(text, file=sys.stderr, flush=True)
                self.saver.failure = error  # the saver writes the checkpoint and raises it
                return
        self.is_pending = False
        metrics, video = _metrics(benchmark, results), out.with_suffix(".gif")
        if videos:
            video.write_bytes(animation(videos, results, kind="GIF"))
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step)
            if videos:
                log_video(logger, video, trainer.global_step)
            logger.save()


def _metrics(benchmark: Benchmark, results: Sequence[EpisodeResult]) -> dict[str, float]:
    """``eval/success``, ``eval/success/<group>`` and the mean of every metric of the benchmark."""
    found = {"eval/success": float(np.mean([r.success for r in results]))}
    for group, share in group_summary(benchmark, results).items():
        found[f"eval/success/{group.replace(' ', '_')}"] = share["success"]
    for name in benchmark.metrics:
        values = [r.metrics[name] for r in results if name in r.metrics]
        if values:
            found[f"eval/{name}"] = float(np.mean(values))
    return found
