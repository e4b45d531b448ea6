"""Closed loop while training: a few tabletop episodes at every validation, their success and their film in TensorBoard."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary

from vla.evaluate import evaluate
from vla.film import animation
from vla.report import default_environment


class RolloutFilm(lightning.Callback):
    """Runs ``episodes`` episodes a skill after each validation on rank 0; does nothing for policies of other robots."""

    def __init__(self, episodes: int) -> None:
        self.episodes = episodes

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        here = [n for n, c in pl_module.contracts.items() if c.environment.get("name") == "tabletop"]
        if not self.episodes or not here or trainer.global_rank:
            return
        policy = pl_module.robot(here[0])
        options, skills = default_environment(policy.contract)
        was_training = pl_module.training
        pl_module.eval()
        results, films = evaluate(policy, "vla/Tabletop-v0", options, self.episodes, skills, film=8, progress=False)
        pl_module.train(was_training)
        success = sum(r.success for r in results) / len(results)
        for logger in trainer.loggers:
            logger.log_metrics({"val/success": success}, trainer.global_step)
            if isinstance(logger, TensorBoardLogger):
                moving = animation(films, results, kind="GIF")
                image = Summary.Image(height=1, width=1, colorspace=3, encoded_image_string=moving)
                summary = Summary(value=[Summary.Value(tag="rollouts", image=image)])
                logger.experiment._get_file_writer().add_summary(summary, trainer.global_step)
                logger.experiment.flush()
