"""``vla plan``: memory, time and batch size of a run before it is started, without weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vla.errors import ConfigError, InvalidValue
from vla.training.config import RunConfig
from vla.training.extensions import split
from vla.training.planning.gpus import find_gpu
from vla.training.planning.survey import Survey

GIB = 2**30
# A little below the mean share of the peak rate in experiments/gpu/results.csv (0.125): an H100,
# 221M to 684M parameters.
UTILISATION = 0.12
_USABLE = 0.92  # of a GPU's memory; the rest is for the CUDA context and gaps between tensors


@dataclass(frozen=True)
class Plan:
    """What a run needs. Memory is in GiB for each GPU; the parts add up to ``total``."""

    gpu: str
    count: int
    strategy: str
    precision: str
    parameters: int
    trainable: int
    gflops_per_row: float  # forward and backward pass of one image row
    weights: float  # with the average of callbacks: [ema]
    gradients: float  # with the buckets of DDP
    optimizer: float  # AdamW's two moments
    gathered: float  # FSDP: weights and gradients that are whole during a step
    activations: float  # and temporary tensors: what the peak needs beyond the others
    total: float
    usable: float  # of the GPU's memory
    batch_size: int  # of all GPUs
    rows_per_gpu: int
    largest_rows_per_gpu: int  # rows of one GPU that fit; 0: not even one
    utilisation: float  # assumed share of the GPU's peak rate
    steps_per_second: float
    steps: int
    hours: float
    assumed: tuple[str, ...]  # data sets that are not packed

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def plan(
    config: RunConfig,
    survey: Survey,
    gpu: str,
    count: int | None = None,
    utilisation: float = UTILISATION,
) -> Plan:
    """The plan of a run. Communication between GPUs is not part of the time.

    Args:
        config: the run.
        survey: of its policy.
        gpu: name in ``GPUS``.
        count: GPUs, which share ``train.batch_size``; None: as in ``trainer``.
        utilisation: assumed share of the GPU's peak rate, above 0 to 1.

    Raises:
        ConfigError: an unknown GPU or strategy, or fewer rows than GPUs.
    """
    check(config, gpu, count, utilisation)
    card, trainer, step = find_gpu(gpu), config.trainer, survey.step
    count = count or trainer.processes
    strategy = _strategy(config, count)
    state = _state(config, survey, strategy, count)
    rows = -(-config.train.batch_size // count)
    held = step.trained / _SHARDED[strategy][1](count)
    during = held if trainer.accumulate_grad_batches > 1 or strategy != "ddp" else None
    others = state.weights + state.buckets + state.optimizer + state.gathered
    # The update needs the gradients, and square roots of the second moments.
    update = held + step.trained / _SHARDED[strategy][2](count)
    total = others + max(step.timeline.peak(rows, during), update)
    room = card.memory_gib * _USABLE * GIB - others
    fits = step.timeline.rows_within(room, during) if update <= room else 0
    peak = card.tflops_32 if trainer.precision == "32-true" else card.tflops_16
    work = step.flops * rows * trainer.accumulate_grad_batches
    seconds = work / (peak * 1e12 * utilisation)
    return Plan(
        gpu=gpu,
        count=count,
        strategy=strategy if count > 1 else "one GPU",
        precision=trainer.precision,
        parameters=survey.parameters,
        trainable=survey.trainable,
        gflops_per_row=step.flops / 1e9,
        weights=state.weights / GIB,
        gradients=(held + state.buckets) / GIB,
        optimizer=state.optimizer / GIB,
        gathered=state.gathered / GIB,
        activations=(total - others - held) / GIB,
        total=total / GIB,
        usable=card.memory_gib * _USABLE,
        batch_size=config.train.batch_size,
        rows_per_gpu=rows,
        largest_rows_per_gpu=fits,
        utilisation=utilisation,
        steps_per_second=1 / seconds,
        steps=config.train.steps,
        hours=seconds * config.train.steps / 3600,
        assumed=survey.assumed,
    )


def check(config: RunConfig, gpu: str, count: int | None, utilisation: float) -> None:
    """Check what needs no policy; see ``plan``.

    Raises:
        ConfigError: an unknown GPU or strategy, fewer rows than GPUs, or an impossible utilisation.
    """
    find_gpu(gpu)
    count = count or config.trainer.processes
    if count > config.train.batch_size:
        raise ConfigError(
            f"--count {count}: train.batch_size={config.train.batch_size} gives a GPU no row; "
            "raise it"
        )
    if not 0 < utilisation <= 1:
        raise ConfigError(f"--utilisation {utilisation}: expected above 0, at most 1")
    _strategy(config, count)


def _whole(count: int) -> int:
    return 1


def _divided(count: int) -> int:
    return count


# Strategy -> how weights, gradients and optimiser states are divided among GPUs.
_SHARDED = {
    "ddp": (_whole, _whole, _whole),
    "deepspeed_stage_1": (_whole, _whole, _divided),
    "deepspeed_stage_2": (_whole, _divided, _divided),
    "deepspeed_stage_3": (_divided, _divided, _divided),
    "fsdp": (_divided, _divided, _divided),
}


def _strategy(config: RunConfig, count: int) -> str:
    """The name of the strategy in ``_SHARDED``."""
    given = config.trainer.strategy
    name = str(given["name"] if isinstance(given, dict) else given)
    if count == 1 or name == "auto" or name.startswith("ddp"):
        return "ddp"
    if name == "deepspeed":
        return "deepspeed_stage_2"
    if name not in _SHARDED:
        known = ", ".join(_SHARDED)
        raise InvalidValue("trainer.strategy", f"{name}: no plan for it; known: {known}")
    return name


@dataclass(frozen=True)
class _State:
    """Bytes on each GPU that do not depend on the rows."""

    weights: float
    buckets: float
    optimizer: float
    gathered: float


def _state(config: RunConfig, survey: Survey, strategy: str, count: int) -> _State:
    trained = survey.step.trained
    of_weights, _, of_states = (divide(count) for divide in _SHARDED[strategy])
    averaged = any(split(entry, "callbacks")[0] == "ema" for entry in config.callbacks)
    gathered = 0.0
    if of_weights > 1:
        root = survey.weights - sum(size for size, _ in survey.layers)
        of_root = trained - sum(size for _, size in survey.layers)
        # The next layer is gathered while one is computed.
        largest = max(survey.layers, default=(0, 0))
        gathered = root + of_root + 2 * largest[0] + largest[1]
    return _State(
        weights=survey.weights * (2 if averaged else 1) / of_weights,
        buckets=float(trained) if strategy == "ddp" and count > 1 else 0.0,
        optimizer=2.0 * trained / of_states,
        gathered=gathered,
    )
