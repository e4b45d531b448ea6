"""Lightning's trainer, loggers and callbacks from the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vla.config import check
from vla.errors import ConfigError, TrainingInterrupted
from vla.policies.checkpoint import load_policy
from vla.training.checkpoint_io import LAST
from vla.training.curves import read_curves
from vla.training.extensions import make_callbacks, make_loggers
from vla.training.run import RunConfig, train
from vla.training.trainer import make_strategy
from vla.training.trainer_config import TrainerConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"max_steps": 5}}, r"trainer\.max_steps: not an option: .*train\.steps"),
        ({"trainer": {"logger": False}}, r"trainer\.logger: not an option: set loggers"),
        ({"trainer": {"devises": 2}}, r"trainer\.devises: unknown key.*devices"),
        ({"trainer": {"strategy": {"static_graph": True}}}, r"trainer\.strategy\.name: required"),
        ({"trainer": {"max_time": "2h"}}, r"trainer\.max_time: expected DD:HH:MM:SS"),
        ({"trainer": {"devices": 5}}, r"train\.batch_size: expected at least one row for each"),
        ({"trainer": {"strategy": "fsp"}}, r"trainer\.strategy: no strategy 'fsp'.*fsdp"),
        (
            {"trainer": {"strategy": {"name": "ddp", "x": 1}}},
            r"trainer\.strategy\.x: unknown option",
        ),
        ({"loggers": ["tensorbord"]}, r"loggers\[0\]: no logger 'tensorbord'.*tensorboard"),
        ({"callbacks": ["emma"]}, r"callbacks\[0\]: no callback 'emma'.*ema"),
        ({"callbacks": ["Timer"]}, r"callbacks\[0\]: Timer is not possible: set trainer.max_time"),
        ({"callbacks": [{"name": "ema", "x": 1}]}, r"callbacks\[0\]\.x: unknown option"),
        (
            {"callbacks": ["ema"], "trainer": {"strategy": "fsdp"}},
            "callbacks: a moving average needs whole weights",
        ),
        (
            {"train": {"eval": {"episodes": 1}}, "trainer": {"strategy": "fsdp"}},
            r"train\.eval\.episodes: one process cannot act",
        ),
        ({"loggers": [{"offline": True}]}, r"loggers\[0\]\.name: required"),
        ({"trainer": {"strategy": "ddp_spawn"}}, r"trainer\.strategy: ddp_spawn is not .*use ddp"),
        ({"trainer": {"strategy": "ddp_notebook"}}, r"ddp_notebook is not possible: .*use ddp"),
        ({"callbacks": ["pathlib:Path"]}, r"callbacks\[0\]: pathlib:Path is no lightning"),
        ({"callbacks": ["os:path"]}, r"callbacks\[0\]: os:path is no lightning"),
        ({"callbacks": [":Callback"]}, r"callbacks\[0\]: :Callback: Empty module"),
        ({"callbacks": ["OnExceptionCheckpoint"]}, r"callbacks\[0\]: .*set train.save_every"),
        ({"callbacks": ["BackboneFinetuning"]}, r"callbacks\[0\]: .*set optim.frozen"),
        ({"callbacks": ["RichProgressBar"]}, r"callbacks\[0\]: .* shows its own progress"),
        (
            {"callbacks": ["lightning.pytorch.callbacks:ModelCheckpoint"]},
            r"callbacks\[0\]: .*ModelCheckpoint is not possible: set train.save_every",
        ),
        ({"callbacks": [{"name": "ema", "decay": "x"}]}, r"callbacks\[0\]: EMAWeightAveraging: "),
        ({"loggers": [{"name": "tensorboard", "x": 1}]}, r"loggers\[0\]\.x: unknown option"),
        ({"loggers": [{"name": "mlflow", "x": 1}]}, r"loggers\[0\]\.x: unknown option"),
        ({"trainer": {"accelerator": "mps"}}, r"trainer: Trainer: .*MPS"),
        ({"trainer": {"accelerator": "banana"}}, r"trainer: Trainer: .*banana"),
        ({"trainer": {"strategy": "deepspeed"}}, r"trainer\.strategy: DeepSpeedStrategy: "),
        (
            {"trainer": {"strategy": {"name": "fsdp", "data_parallel_size": 7}}},
            r"trainer\.strategy\.data_parallel_size: not an option: set trainer\.devices",
        ),
        ({"callbacks": ["nowhere:Callback"]}, r"callbacks\[0\]: nowhere:Callback: No module"),
    ],
)
def test_a_mistake_is_one_message_before_anything_is_written(
    tiny_run: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(check(tiny_run | changes, RunConfig, ""), progress=False)
    assert not Path(str(tiny_run["output_dir"])).exists()


class Refusing(Callback):
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        raise MisconfigurationException("not this run")


def test_a_callback_that_refuses_the_run_is_one_message(tiny_run: dict[str, Any]) -> None:
    changes = {"callbacks": [f"{__name__}:Refusing"]}
    with pytest.raises(ConfigError, match=r"trainer, loggers or callbacks: not this run"):
        train(check(tiny_run | changes, RunConfig, ""), progress=False)


def test_strategies_have_their_options() -> None:
    ddp = make_strategy(TrainerConfig(strategy={"name": "ddp", "static_graph": True}))
    assert isinstance(ddp, DDPStrategy) and ddp._ddp_kwargs["static_graph"]
    assert make_strategy(TrainerConfig()) == "auto"
    assert make_strategy(TrainerConfig(devices=2)) == "ddp_find_unused_parameters_true"


def test_a_csv_logger_is_always_there(tmp_path: Path) -> None:
    (csv,) = make_loggers([], tmp_path, 0)
    assert isinstance(csv, CSVLogger)
    tensorboard, csv = make_loggers([{"name": "tensorboard", "flush_secs": 5}], tmp_path, 0)
    assert isinstance(tensorboard, TensorBoardLogger) and isinstance(csv, CSVLogger)
    (own,) = make_callbacks([{"name": "lightning.pytorch.callbacks:LambdaCallback"}])
    assert type(own).__name__ == "LambdaCallback"


def test_accumulated_batches_make_one_step(tiny_run: dict[str, Any]) -> None:
    tiny_run["trainer"] = {"accelerator": "cpu", "accumulate_grad_batches": 2}
    tiny_run["train"] = tiny_run["train"] | {"steps": 4, "val_every": 2}
    saved = train(check(tiny_run, RunConfig, ""), progress=False)
    curves = read_curves(saved.parent)
    assert [step for step, _ in curves["train/loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in curves["val/loss"]] == [2, 4]
    assert curves["images"][-1] == (4, 4 * 2 * 4)  # steps, batches of a step, rows of a batch


def test_a_run_stops_after_its_time_and_continues(tiny_run: dict[str, Any]) -> None:
    tiny_run["trainer"] = {"accelerator": "cpu", "max_time": "00:00:00:00"}
    folder = Path(str(tiny_run["output_dir"]))
    with pytest.raises(TrainingInterrupted, match="stopped at step 1 of 6"):
        train(check(tiny_run, RunConfig, ""), progress=False)
    assert (folder / LAST).is_file() and not (folder / "policy").exists()
    tiny_run["trainer"] = {"accelerator": "cpu"}
    train(check(tiny_run, RunConfig, ""), progress=False)
    assert [step for step, _ in read_curves(folder)["train/loss"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_compiled_policy_has_the_same_losses(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    found = []
    for compiled in (False, True):
        folder = f"{tiny_run['output_dir']}_{compiled}"
        run = tiny_run | {"output_dir": folder, "compile": compiled}
        saved = train(check(run, RunConfig, ""), progress=False)
        found.append([value for _, value in read_curves(saved.parent)["train/loss"]])
        assert load_policy(saved)
    assert found[1] == pytest.approx(found[0], rel=1e-4) and len(found[0]) == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages
def test_wandb_and_mlflow_get_metrics_and_videos(
    tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = Path(str(tiny_run["output_dir"]))
    loggers = [{"name": "wandb", "offline": True}, "mlflow"]
    tiny_run["train"] = tiny_run["train"] | {"eval": {"episodes": 1}}
    train(check(tiny_run | {"loggers": loggers}, RunConfig, ""), progress=False)
    assert not (folder / "tensorboard").exists() and list(folder.glob("csv-*"))
    client = mlflow.tracking.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vla")
    (run,) = client.search_runs([experiment.experiment_id])
    assert {"train/loss", "train/loss.robot", "eval/success"} <= run.data.metrics.keys()
    gifs = [a.path for a in client.list_artifacts(run.info.run_id, "rollouts")]
    assert gifs == ["rollouts/step-00000003.gif", "rollouts/step-00000006.gif"]
    (offline,) = (folder / "wandb").glob("offline-run-*")
    assert list(offline.glob("*.wandb")) and len(list(offline.rglob("*.gif"))) == 2


@pytest.mark.slow
def test_the_moving_average_of_the_weights_is_saved(tiny_run: dict[str, Any]) -> None:
    def weights(name: str, callbacks: list[Any]) -> dict[str, torch.Tensor]:
        run = tiny_run | {"output_dir": f"{tiny_run['output_dir']}_{name}", "callbacks": callbacks}
        saved = train(check(run, RunConfig, ""), progress=False)
        return load_policy(saved).state_dict()

    plain = weights("plain", [])
    still = weights("still", [{"name": "ema", "decay": 0.0}])
    slow = weights("slow", [{"name": "ema", "decay": 0.9}])
    assert all(torch.equal(plain[name], still[name]) for name in plain)
    assert any(not torch.equal(plain[name], slow[name]) for name in plain)
