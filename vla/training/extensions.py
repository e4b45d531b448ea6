"""Loggers and callbacks of a run by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch import loggers as lightning_loggers
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from vla.config.registry import nearest
from vla.errors import InvalidValue
from vla.utils.csv_tables import read_table, write_table

LOGGERS = {  # name -> package
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "comet": "comet_ml",
}
CALLBACKS = {"ema": "EMAWeightAveraging", "device_stats": "DeviceStatsMonitor"}
# Classes that give further options to another class.
_PASSED_ON = {DDPStrategy: DistributedDataParallel, WeightAveraging: AveragedModel}
# Lightning's callbacks that would stop, save or change a run beside our own.
_REFUSED = {
    "ModelCheckpoint": "set train.save_every",
    "EarlyStopping": "set train.patience",
    "BatchSizeFinder": "it changes the batches of the run",
    "LearningRateFinder": "it trains before the run",
    "GradientAccumulationScheduler": "set trainer.accumulate_grad_batches",
    "Timer": "set trainer.max_time",
}


def check_loggers(entries: Sequence[str | dict[str, Any]]) -> None:
    """Check the names of loggers, and that their packages are installed.

    Raises:
        InvalidValue: an unknown logger, or its package is missing.
    """
    for index, entry in enumerate(entries):
        name, _ = split(entry)
        if name not in LOGGERS:
            raise InvalidValue(f"loggers[{index}]", f"no logger {name!r}{nearest(name, LOGGERS)}")
        if importlib.util.find_spec(LOGGERS[name]) is None:
            package = LOGGERS[name].replace("_", "-")
            raise InvalidValue(f"loggers[{index}]", f"{name} needs: pip install {package}")


def make_loggers(entries: Sequence[str | dict[str, Any]], folder: Path, done: int) -> list[Logger]:
    """The named loggers, and always a CSV logger.

    Args:
        entries: names, or mappings with ``name`` and options of Lightning's class.
        folder: of the run.
        done: steps before this start; what TensorBoard has of later ones is hidden.

    Raises:
        InvalidValue: an unknown option.
    """
    csv = _CSV(str(folder), name="", version=f"csv-{len(list(folder.glob('csv-*'))):04d}")
    return [*(_logger(entry, index, folder, done) for index, entry in enumerate(entries)), csv]


class _Rows(ExperimentWriter):
    """Lightning's class writes over the file in place when there is a new column."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        write_table(path, read_table(path), fieldnames)


class _CSV(CSVLogger):
    """Keeps the rows when the process is killed at any moment."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of ``metrics.csv``."""
        if self._experiment is None:
            self._experiment = _Rows(log_dir=self.log_dir)
        return self._experiment


class _MLFlow(lightning_loggers.MLFlowLogger):
    """Its stores make folders of names, where ``a/b`` and ``a/b/c`` exclude each other."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log ``train/loss/robot`` as ``train/loss.robot``."""
        first = {name: name.partition("/") for name in metrics}
        renamed = {n: f"{a}{slash}{b.replace('/', '.')}" for n, (a, slash, b) in first.items()}
        super().log_metrics({renamed[n]: value for n, value in metrics.items()}, step)


def _logger(entry: str | dict[str, Any], index: int, folder: Path, done: int) -> Logger:
    name, options = split(entry)
    path = f"loggers[{index}]"
    run = folder.name
    kind: Any
    if name == "tensorboard":
        # TensorBoard shows the run's name.
        purge = {"purge_step": done + 1} if done else {}
        kind, defaults = TensorBoardLogger, {"save_dir": str(folder), "version": run, **purge}
        defaults["name"] = "tensorboard"
    elif name == "wandb":  # one run for all starts
        kind = lightning_loggers.WandbLogger
        defaults = {"save_dir": str(folder), "name": run, "id": run, "resume": "allow"}
    elif name == "mlflow":
        kind = _MLFlow
        defaults = {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", "run_name": run}
        defaults["artifact_location"] = (folder.resolve() / "mlflow").as_uri()
        defaults["experiment_name"] = "vla"
    else:
        kind, defaults = lightning_loggers.CometLogger, {"name": run}
    return made(kind, defaults | options, path)


def make_callbacks(entries: Sequence[str | dict[str, Any]]) -> list[Callback]:
    """The named callbacks: ``ema``, any of Lightning's classes, or ``module:Class``.

    Raises:
        InvalidValue: an unknown callback or option.
    """
    found = []
    for index, entry in enumerate(entries):
        name, options = split(entry)
        path = f"callbacks[{index}]"
        callback = made(_callback_class(name, path), options, path)
        if not isinstance(callback, Callback):
            raise InvalidValue(path, f"{name} is no lightning.pytorch.Callback")
        found.append(callback)
    return found


def _callback_class(name: str, path: str) -> Any:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InvalidValue(path, f"{name}: {error}") from error
    name = CALLBACKS.get(name, name)
    if name in _REFUSED:
        raise InvalidValue(path, f"{name} is not possible: {_REFUSED[name]}")
    if name not in lightning_callbacks.__all__:
        known = [*CALLBACKS, *lightning_callbacks.__all__]
        raise InvalidValue(path, f"no callback {name!r}{nearest(name, known)}")
    return getattr(lightning_callbacks, name)


def made(kind: Any, options: dict[str, Any], path: str) -> Any:
    """An object of a library's class.

    Raises:
        InvalidValue: an option that the class does not have, or its package is missing.
    """
    known: Mapping[str, Any] = inspect.signature(kind).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        target = next((t for base, t in _PASSED_ON.items() if issubclass(kind, base)), None)
        known = options if target is None else {**known, **inspect.signature(target).parameters}
    for name in options:
        if name not in known:
            raise InvalidValue(f"{path}.{name}", f"unknown option{nearest(name, known)}")
    try:
        return kind(**options)
    except (TypeError, ValueError, ImportError) as error:
        raise InvalidValue(path, f"{kind.__name__}: {error}") from error


def split(entry: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(name, options) of a name, or of a mapping with ``name``."""
    if isinstance(entry, str):
        return entry, {}
    return str(entry.get("name", "")), {k: v for k, v in entry.items() if k != "name"}
