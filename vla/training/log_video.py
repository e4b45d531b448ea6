"""Videos for the loggers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from tensorboard.compat.proto.summary_pb2 import Summary


def log_video(logger: Any, path: Path, step: int) -> None:
    """Show a GIF file as ``rollouts`` in TensorBoard, W&B, MLflow or Comet; others show none."""
    if isinstance(logger, loggers.TensorBoardLogger):
        image = Summary.Image(
            height=1, width=1, colorspace=3, encoded_image_string=path.read_bytes()
        )
        summary = Summary(value=[Summary.Value(tag="rollouts", image=image)])
        logger.experiment._get_file_writer().add_summary(summary, step)
    elif isinstance(logger, loggers.WandbLogger):
        logger.log_video("rollouts", [str(path)], step, format=["gif"])
    elif isinstance(logger, loggers.MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), "rollouts")
    elif isinstance(logger, loggers.CometLogger):
        logger.experiment.log_video(str(path), name="rollouts", step=step)
