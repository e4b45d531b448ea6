"""Benchmark episodes during training: success rate and a video in TensorBoard."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary

from vla.evaluation.rollout import evaluate, open_benchmark
from vla.evaluation.video import animation


class RolloutVideo(lightning.Callback):
    """Runs ``episodes`` episodes of every default task after each validation, on rank 0.

    It runs them for the first robot whose data was recorded in a benchmark. Without such a robot
    it does nothing.
    """

    def __init__(self, episodes: int) -> None:
        self.episodes = episodes

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Run the episodes and log ``val/success`` and the video."""
        robots = [n for n, spec in pl_module.specs.items() if spec.benchmark]
        if not self.episodes or not robots or trainer.global_rank:
            return
        policy = pl_module.robot(robots[0])
        benchmark = open_benchmark(policy.spec.benchmark, policy.spec.cameras)
        tasks = benchmark.default_tasks()
        was_training = pl_module.training
        pl_module.eval()
        results, videos = evaluate(
            policy, benchmark, tasks, self.episodes, videos=8, progress=False
        )
        pl_module.train(was_training)
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
