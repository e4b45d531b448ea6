"""Losses and gradients that are not finite stop a run before anything is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vla.config import check
from vla.errors import TrainingDiverged
from vla.models.heads.base import HeadLoss
from vla.models.heads.token import TokenHead
from vla.policies.base import BasePolicy
from vla.training.checkpoint_io import LAST, checkpoint_step
from vla.training.run import RunConfig, train
from vla.utils.metrics import MetricMeans

# Lightning and tensorboard emit warnings about their own code.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def break_loss(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that changes the robot loss of one call."""
    original, calls = TokenHead.loss, 0

    def install(call: int, change: Callable[[torch.Tensor], torch.Tensor], training: bool) -> None:
        def loss(self: TokenHead, *arguments: Any, **options: Any) -> HeadLoss:
            nonlocal calls
            found = original(self, *arguments, **options)
            calls += self.training == training
            if calls == call and self.training == training:
                found.loss_M = change(found.loss_M)
            return found

        monkeypatch.setattr(TokenHead, "loss", loss)

    return install


def nan(loss_M: torch.Tensor) -> torch.Tensor:
    return loss_M * float("nan")


class NanGradient(torch.autograd.Function):
    """The same value, and a gradient of NaN."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan")


def stopped(configuration: dict[str, Any], message: str) -> Path:
    """The folder of a run that stops with the message and saves no policy.

    Batches of 8 rows have rows of both data sets.
    """
    configuration["train"] = configuration["train"] | {"batch_size": 8, "seed": 1}
    with pytest.raises(TrainingDiverged, match=message):
        train(check(configuration, RunConfig, ""), progress=False)
    folder = Path(str(configuration["output_dir"]))
    assert not (folder / "policy").exists()
    return folder


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_names_step_and_data_set(
    tiny_run: dict[str, Any], break_loss: Callable[..., None], value: str
) -> None:
    break_loss(4, lambda loss_M: loss_M + float(value), True)
    data = tiny_run["data"]["datasets"]["robot"]
    message = rf"step 4, batch 4: the loss of robot is {value}; no policy .*vla doctor {data}"
    folder = stopped(tiny_run, message)
    assert checkpoint_step(folder / LAST) == 3
    weights = torch.load(folder / LAST, weights_only=True)["state_dict"].values()
    assert all(torch.isfinite(w).all() for w in weights)


@pytest.mark.parametrize("step", [4, 6])
def test_a_gradient_that_is_not_finite_is_never_saved(
    tiny_run: dict[str, Any], break_loss: Callable[..., None], step: int
) -> None:
    """Also at the last step, after which no other loss would show it."""
    break_loss(step, NanGradient.apply, True)
    tiny_run["train"] = tiny_run["train"] | {"val_every": 5}
    folder = stopped(
        tiny_run, rf"step {step}, batch {step}: the gradient of robot, web has the norm nan"
    )
    assert checkpoint_step(folder / LAST) == step - 1


def test_a_validation_loss_that_is_not_finite_stops_the_run(
    tiny_run: dict[str, Any], break_loss: Callable[..., None]
) -> None:
    break_loss(1, nan, False)
    stopped(tiny_run, r"step 3: the validation loss of robot is nan")


def test_the_same_value_on_a_row_without_weight_does_not_count() -> None:
    means = MetricMeans()
    values = torch.tensor([1.0, float("nan")])
    means.update("train/loss/good", values, torch.tensor([1.0, 0.0]))
    means.update("train/loss/bad", values, torch.tensor([0.0, 1.0]))
    assert means.is_finite("train/loss/good") and not means.is_finite("train/loss/bad")
    assert means.compute_and_reset("train", torch.device("cpu"))["train/loss/good"] == 1.0


STAGES = {
    "setup": (BasePolicy, "setup"),
    "optimizers": (BasePolicy, "configure_optimizers"),
    "train start": (BasePolicy, "on_train_start"),
    "batch": (BasePolicy, "training_step"),
    "backward": (BasePolicy, "on_after_backward"),
    "validation": (BasePolicy, "validation_step"),
    "log": (BasePolicy, "pop_metrics"),
    "checkpoint": (BasePolicy, "on_save_checkpoint"),
    "train end": (BasePolicy, "on_train_end"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_at_any_stage_is_reported_as_it_is(
    tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError(stage)

    monkeypatch.setattr(*STAGES[stage], fail)
    tiny_run["train"] = tiny_run["train"] | {"steps": 1, "val_windows": 2}
    with pytest.raises(ZeroDivisionError, match=stage):
        train(check(tiny_run, RunConfig, ""), progress=True)
