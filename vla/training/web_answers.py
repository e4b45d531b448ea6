"""Answers to questions of web data during training."""

from __future__ import annotations

from typing import Any

import lightning
import torch

from vla.data.manifest import load_manifest
from vla.data.packed import open_packed
from vla.errors import ConfigError
from vla.evaluation.vqa import answer_questions, questions_of, scores_by_test

_SCORES = ("accuracy", "vqa_accuracy", "anls", "bleu4", "rouge_l")


class WebAnswers(lightning.Callback):
    """Answers ``questions`` validation questions of every web data set at each validation.

    It adds ``val/accuracy/<data set>`` and the other scores of ``vla eval-vqa`` to the metrics, on
    rank 0, before they are logged.

    Args:
        questions: of each data set; 0: none.
    """

    def __init__(self, questions: int) -> None:
        self.questions = questions
        self.folders: dict[str, str] = {}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the web data sets.

        Raises:
            ConfigError: the policy cannot answer questions, or there are none.
        """
        config = trainer.datamodule.config
        self.folders = {
            name: folder
            for name, folder in config.datasets.items()
            if self.questions
            and config.sampling_weights.get(name, 0) > 0
            and load_manifest(folder).kind == "web"
        }
        if self.folders and not hasattr(pl_module, "answer"):
            raise ConfigError(
                f"train.web_questions={self.questions}: {type(pl_module).__name__} cannot answer "
                "questions; set it to 0"
            )

        for name, folder in self.folders.items():
            if next(questions_of(open_packed(folder), "val"), None) is None:
                raise ConfigError(
                    f"train.web_questions={self.questions}: the validation split of {name} has no "
                    "question about an image; set it to 0"
                )

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Answer the questions and add their scores to the metrics."""
        if trainer.global_rank:
            return
        for name, folder in self.folders.items():
            answers = answer_questions(pl_module, folder, self.questions, progress=False)
            scores = scores_by_test(answers)["all"]
            for score in (s for s in _SCORES if s in scores):
                value = torch.tensor([scores[score]], device=pl_module.device)
                pl_module.metrics.update(f"val/{score}/{name}", value)
