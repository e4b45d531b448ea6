"""Configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any, Literal

from vla.config import Slot, check_ranges, plain
from vla.config.validation import InvalidValue
from vla.data.config import DataConfig, check_names
from vla.policies.execution import Execution
from vla.training.trainer_config import TrainerConfig


@dataclass(frozen=True)
class EvalConfig:
    """Benchmark episodes during training, with metrics and a video in TensorBoard."""

    episodes: int = 0  # of each task in one evaluation; 0: none
    # Name of a benchmark, or name and options; empty: the one that the data was recorded in.
    benchmark: str | dict[str, Any] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)  # ids or groups; empty: the default tasks
    # Steps between two evaluations, a multiple of ``val_every``; 0: after each validation. The
    # saved weights and early stopping depend on the validation alone.
    every: int = 0
    workers: int | None = None  # as in ``vla eval``: processes with one environment each

    def __post_init__(self) -> None:
        check_ranges(self, episodes=(0, inf), every=(0, inf), workers=(0, inf))

    @property
    def described(self) -> dict[str, Any]:
        """Name and options of the benchmark; empty: that of the data."""
        return {"name": self.benchmark} if isinstance(self.benchmark, str) else self.benchmark


@dataclass(frozen=True)
class TrainConfig:
    """Length and logging of a training run."""

    # Optimiser steps. A larger number continues a run, also a finished one. The cosine and linear
    # schedules then end at the new last step, so the learning rate jumps.
    steps: int = 1000
    batch_size: int = 16  # image rows of one step; several processes share them
    seed: int = 0  # seed of initial weights, data order and augmentation
    log_every: int = 50  # steps between two logs of the training metrics
    val_every: int = 500  # steps between two validations
    save_every: int = 250  # steps between two checkpoints
    val_windows: int = 200  # samples of each data set in one validation
    # Benchmark episodes after validations.
    eval: EvalConfig = field(default_factory=EvalConfig)
    # Validation questions of each web data set that are answered at every validation: accuracy,
    # VQA accuracy, ANLS, BLEU-4 and ROUGE-L are logged; 0: none.
    web_questions: int = 0
    # Validations without improvement after which training stops; 0: no early stopping. If it is
    # not 0, the policy is saved with the weights of the best validation.
    patience: int = 0
    monitor: str = "val/loss"  # validation metric of early stopping; lower is better
    # all: the policy is saved whole. changed: without the weights that are those of the pretrained
    # models, or of the policy of init_from (with LoRA it then has adapters, connector and head).
    # Loading it needs them unchanged on the same machine; ``vla merge`` writes a whole policy.
    saved_weights: Literal["all", "changed"] = "all"
    threads: int = 0  # CPU threads of torch; 0: torch's default

    def __post_init__(self) -> None:
        some, any_number = (1, inf), (0, inf)
        check_ranges(
            self,
            **dict.fromkeys(("steps", "batch_size"), some),
            **dict.fromkeys(("log_every", "val_every", "save_every"), some),
            **dict.fromkeys(("val_windows", "web_questions", "patience"), any_number),
            threads=any_number,
            seed=(0, 2**32 - 1),
        )
        between = min(self.val_every, self.steps)
        if self.eval.every % between:
            problem = f"expected a multiple of val_every ({between}), got {self.eval.every}"
            raise InvalidValue("eval.every", problem)
        if self.eval.episodes and self.eval.every > self.steps:
            problem = f"expected at most steps ({self.steps}), got {self.eval.every}"
            raise InvalidValue("eval.every", problem)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and a schedule."""

    lr: float = 1e-3  # learning rate after warm-up
    # Factor of every learning rate here; scaling ladders set it for a model size.
    lr_scale: float = 1.0
    weight_decay: float = 0.05  # of matrices; vectors (biases, norms) have none
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's beta1 and beta2
    warmup_steps: int = 100  # steps of linear warm-up
    # Learning rate after warm-up.
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr_ratio: float = 0.02  # last learning rate divided by lr (cosine and linear)
    grad_clip_norm: float = 1.0  # largest gradient norm; larger gradients are scaled to it
    # Factors of lr for parts of the policy by name, for example {vision: 0.1, decoder.lm: 0.3}. The
    # longest matching name counts.
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    # Parts that are not trained, for example [vision, connector, decoder] to train only the heads.
    frozen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_ranges(self, lr=(0, inf), lr_scale=(0, inf), weight_decay=(0, inf))
        check_ranges(self, warmup_steps=(0, inf), min_lr_ratio=(0, 1), grad_clip_norm=(0, inf))


@dataclass(frozen=True)
class Cluster:
    """Resources of a run on SLURM or Ray."""

    partition: str | None = None  # SLURM partition; null: the cluster's default
    minutes: int = 600  # time limit of a run
    cpus: int = 4  # CPU cores of a run
    gpus: int = 0  # GPUs of a run
    # Further parameters of submitit's ``update_parameters``.
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """One training run: the policy, the data and the training."""

    # The policy, its components and their options.
    policy: Annotated[dict[str, Any], Slot("policy")]
    # Data sets and how they are sampled.
    data: DataConfig
    # Folder of checkpoints, logs and the saved policy.
    output_dir: str
    # Folder of a saved policy that initialises this one: vision encoder, connector and decoder, and
    # the action head, state encoder and camera embeddings of a robot where their shapes fit.
    init_from: str | None = None
    # Execution of action chunks; saved with the policy as the default of evaluation and serving.
    execution: Execution = field(default_factory=Execution)
    # Length and logging.
    train: TrainConfig = field(default_factory=TrainConfig)
    # Hardware, processes and precision, as options of Lightning's trainer.
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    # torch.compile of vision encoder, connector and language model; the first steps are slow.
    compile: bool = False
    # Loggers beside the CSV logger: tensorboard, wandb, mlflow, comet; or {name: wandb, project: x}
    # with options of Lightning's class.
    loggers: list[str | dict[str, Any]] = field(default_factory=lambda: ["tensorboard"])
    # Callbacks: ema (moving average of the weights, which is validated and saved), a class of
    # lightning.pytorch.callbacks, or module:Class; or {name: ema, decay: 0.999} with options.
    callbacks: list[str | dict[str, Any]] = field(default_factory=list)
    # Resources with ``--launcher slurm``.
    slurm: Cluster = field(default_factory=Cluster)
    # Optimiser and schedule.
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        check_names(self.data)
        if self.train.batch_size < self.trainer.processes:
            raise InvalidValue(
                "train.batch_size",
                f"expected at least one row for each of {self.trainer.processes} processes, "
                f"got {self.train.batch_size}",
            )
        for option, problem in self.execution.problems(self.data.window.horizon):
            raise InvalidValue(f"execution.{option}", problem)


def resolved(config: RunConfig) -> dict[str, Any]:
    """The whole configuration as plain data, for ``config.yaml``."""
    return plain(vars(config))
