"""Benchmark episodes during training: success rate and a video in TensorBoard."""

from __future__ import annotations

import sys
from typing import Any

import lightning
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary

from vla.benchmarks.base import Benchmark
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.evaluation.video import animation


class RolloutVideo(lightning.Callback):
    """Runs ``episodes`` episodes of every default task after each validation, on rank 0.

    It runs them for the first robot whose data was recorded in a benchmark. Without such a robot
    it does nothing. If the benchmark cannot be opened here, it says so before the first step.

    Args:
        episodes: of each task; 0: none.
        progress: show the progress of long rollouts in log files.
    """

    def __init__(self, episodes: int, progress: bool = False) -> None:
        self.episodes, self.progress = episodes, progress

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Create one environment of the benchmark, and go without rollouts if that fails."""
        if trainer.global_rank or not self._robot(pl_module):
            return
        try:
            benchmark = self._open(pl_module)
            benchmark.make_env(benchmark.default_tasks()[0]).close()
        except Exception as error:  # libraries of simulators raise anything
            self.episodes = 0
            reason = " ".join(str(error).split()) or type(error).__name__
            text = f"no rollouts during training: the benchmark cannot be opened ({reason})"
            print(text, file=sys.stderr, flush=True)

    def _robot(self, policy: Any) -> str | None:
        robots = [n for n, spec in policy.specs.items() if spec.benchmark]
        return robots[0] if robots and self.episodes else None

    def _open(self, policy: Any) -> Benchmark:
        spec = policy.specs[self._robot(policy)]
        return open_benchmark(spec.benchmark, spec.cameras)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Run the episodes and log ``val/success`` and the video."""
        robot = self._robot(pl_module)
        if robot is None or trainer.global_rank:
            return
        policy, benchmark = pl_module.robot(robot), self._open(pl_module)
        tasks = benchmark.default_tasks()
        results, videos = evaluate(
            policy, benchmark, tasks, self.episodes, videos=8, progress=self.progress
        )
        success = sum(r.success for r in results) / len(results)
        for logger in trainer.loggers:
            logger.log_metrics({"val/success": success}, trainer.global_step)
            if isinstance(logger, TensorBoardLogger):
                gif = animation(videos, results, kind="GIF")
                image = Summary.Image(height=1, width=1, colorspace=3, encoded_image_string=gif)
                summary = Summary(value=[Summary.Value(tag="rollouts", image=image)])
                writer = logger.experiment._get_file_writer()
                writer.add_summary(summary, trainer.global_step)
                logger.experiment.flush()
