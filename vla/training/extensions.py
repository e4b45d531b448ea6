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
# Lightning's callbacks that would stop, save or change a run beside our own.
_REFUSED = {
    "Checkpoint": "set train.save_every",
    "ProgressBar": "the run shows its own progress",
    "EarlyStopping": "set train.patience",
    "BatchSizeFinder": "it changes the batches of the run",
    "LearningRateFinder": "it trains before the run",
    "GradientAccumulationScheduler": "set trainer.accumulate_grad_batches",
    "BaseFinetuning": "set optim.frozen",
    "StochasticWeightAveraging": "use ema",
    "Timer": "set trainer.max_time",
}


def check_loggers(entries: Sequence[str | dict[str, Any]]) -> None:
    """Check the names and options of loggers, and that their packages are installed.

    Raises:
        InvalidValue: an unknown logger or option, or its package is missing.
    """
    for index, entry in enumerate(entries):
        path = f"loggers[{index}]"
        name, options = split(entry, path)
        if name not in LOGGERS:
            raise InvalidValue(path, f"no logger {name!r}{nearest(name, LOGGERS)}")
        if importlib.util.find_spec(LOGGERS[name]) is None:
            package = LOGGERS[name].replace("_", "-")
            raise InvalidValue(path, f"{name} needs: pip install {package}")
        _check_options(_logger_class(name), options, path)


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
    path = f"loggers[{index}]"
    name, options = split(entry, path)
    run = folder.name
    defaults: dict[str, Any]
    if name == "tensorboard":
        # TensorBoard shows the run's name.
        purge = {"purge_step": done + 1} if done else {}
        defaults = {"save_dir": str(folder), "name": "tensorboard", "version": run, **purge}
    elif name == "wandb":  # one run for all starts
        defaults = {"save_dir": str(folder), "name": run, "id": run, "resume": "allow"}
    elif name == "mlflow":
        defaults = {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", "run_name": run}
        defaults["artifact_location"] = (folder.resolve() / "mlflow").as_uri()
        defaults["experiment_name"] = "vla"
    else:
        defaults = {"name": run}
    return made(_logger_class(name), defaults | options, path)


def _logger_class(name: str) -> Any:
    own = {"tensorboard": TensorBoardLogger, "mlflow": _MLFlow}
    others = {"wandb": "WandbLogger", "comet": "CometLogger"}
    return own[name] if name in own else getattr(lightning_loggers, others[name])


def make_callbacks(entries: Sequence[str | dict[str, Any]]) -> list[Callback]:
    """The named callbacks: ``ema``, any of Lightning's classes, or ``module:Class``.

    Raises:
        InvalidValue: an unknown callback or option.
    """
    found = []
    for index, entry in enumerate(entries):
        path = f"callbacks[{index}]"
        name, options = split(entry, path)
        found.append(made(_callback_class(name, path), options, path))
    return found


def _callback_class(name: str, path: str) -> Any:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            kind = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the module may raise anything
            raise InvalidValue(path, f"{name}: {error}") from error
        if not inspect.isclass(kind) or not issubclass(kind, Callback):
            raise InvalidValue(path, f"{name} is no lightning.pytorch.Callback")
    else:
        name = CALLBACKS.get(name, name)
        if name not in lightning_callbacks.__all__:
            known = [*CALLBACKS, *lightning_callbacks.__all__]
            raise InvalidValue(path, f"no callback {name!r}{nearest(name, known)}")
        kind = getattr(lightning_callbacks, name)
    for refused, instead in _REFUSED.items():
        if issubclass(kind, getattr(lightning_callbacks, refused)):
            raise InvalidValue(path, f"{name} is not possible: {instead}")
    return kind


def made(kind: Any, options: dict[str, Any], path: str) -> Any:
    """An object of a library's class.

    Raises:
        InvalidValue: an option that the class does not have, or it refuses a value, or its package
            is missing.
    """
    _check_options(kind, options, path)
    try:
        return kind(**options)
    except Exception as error:  # Lightning's errors have no common class
        raise InvalidValue(path, f"{kind.__name__}: {error}") from error


def _check_options(kind: Any, options: dict[str, Any], path: str) -> None:
    known: Mapping[str, Any] = inspect.signature(kind).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        target = _receiver(kind)
        known = options if target is None else {**known, **inspect.signature(target).parameters}
    for name in options:
        if name not in known:
            raise InvalidValue(f"{path}.{name}", f"unknown option{nearest(name, known)}")


def _receiver(kind: Any) -> Any:
    """What a class passes further options on to; None: unknown."""
    if issubclass(kind, DDPStrategy):
        return DistributedDataParallel
    if issubclass(kind, WeightAveraging):
        return AveragedModel
    if issubclass(kind, TensorBoardLogger):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    if issubclass(kind, lightning_loggers.WandbLogger):
        import wandb

        return wandb.init
    return None


def split(entry: str | dict[str, Any], path: str) -> tuple[str, dict[str, Any]]:
    """(name, options) of a name, or of a mapping with ``name``.

    Raises:
        InvalidValue: a mapping without ``name``.
    """
    if isinstance(entry, str):
        return entry, {}
    if "name" not in entry:
        raise InvalidValue(f"{path}.name", "required")
    return str(entry["name"]), {k: v for k, v in entry.items() if k != "name"}
