"""Time one loop of training against a bare loop; run.py starts it in processes of their own.

Both loops train the same policy with the same batches: a callback of the measured loop takes the
steps of the bare loop. The bare loop is a data loader, the losses, backward,
gradient clipping and the optimiser.
Usage: python experiments/step_speed/measure.py JSON
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch

from vla.config import load_config
from vla.data.datamodule import Streams, sample_chunks
from vla.data.pack import pack_from
from vla.models.lora import count_parameters
from vla.training.provenance import commit
from vla.training.run import RunConfig, make_policy, train_from_file

HERE, WARM = Path(__file__).parent, 6
ROOT = HERE.parents[1]


def _of_this_checkout(path: str) -> Any:
    """A module of the checkout of this file, also while the package is that of another one."""
    spec = importlib.util.spec_from_file_location("counted_flops", ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FLOPS = _of_this_checkout("vla/utils/flops.py")


class _Enough(Exception):
    """The time of the measurement is over."""


class Pairs:
    """Steps of a loop and of the bare loop in turns.

    A repeat has ``block`` steps of each loop, an even number; the measured loop logs once in it.
    The loops take turns in pairs, so that each is the first one with every other batch: texts that
    occur again have their tokens in a cache.
    """

    def __init__(self, config: Any, seconds: float, block: int) -> None:
        options = config.train
        self.clip = config.optim.grad_clip_norm
        streams = Streams(config.data, options.batch_size, options.seed, options.val_windows)
        self.batches = iter(streams.train_dataloader())
        self.seconds, self.block = seconds, block
        self.loop, self.bare = list[float](), list[float]()  # seconds of every step
        self.flops = list[float]()
        self.peak = FLOPS.PeakRate(torch.device("cpu"))
        self.count, self.began, self.resumed = 0, 0.0, 0.0

    def after_step(self, policy: Any, optimizer: Any) -> None:
        """Two steps of the bare loop after every other step of the measured loop.

        The time since the last call is that of the measured loop. The first steps warm up.
        """
        taken = time.perf_counter() - self.resumed
        self.count += 1
        twice = 2 * (self.count % 2)
        if self.count <= WARM:
            for _ in range(twice):
                with FLOPS.flop_counter() as counter:
                    self._bare(policy, optimizer)
                self.flops.append(float(counter.get_total_flops()))
            self.began = time.perf_counter()
        else:
            self.loop.append(taken)
            for _ in range(twice):
                start = time.perf_counter()
                self._bare(policy, optimizer)
                self.bare.append(time.perf_counter() - start)
            if len(self.loop) % self.block == 0:
                for width in (512, 1024, 2048):
                    self.peak.measure(width)
                if time.perf_counter() - self.began > self.seconds:
                    raise _Enough
        self.resumed = time.perf_counter()

    def _bare(self, policy: Any, optimizer: Any) -> None:
        batch = next(self.batches)
        optimizer.zero_grad()
        bare_loss(policy, batch).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), self.clip)
        optimizer.step()

    def found(self) -> dict[str, Any]:
        """Medians over the repeats."""
        parts = [slice(k, k + self.block) for k in range(0, len(self.loop), self.block)]
        repeats = [(sum(self.loop[part]), sum(self.bare[part])) for part in parts]
        return {
            "repeats": len(repeats),
            "step_ms": 1000 * statistics.median(loop for loop, _ in repeats) / self.block,
            "bare_ms": 1000 * statistics.median(bare for _, bare in repeats) / self.block,
            "ratio": statistics.median(loop / bare for loop, bare in repeats),
            "gflops_step": statistics.mean(self.flops) / 1e9,
            "peak_gflops": self.peak.flops / 1e9,
        }


def bare_loss(policy: Any, batch: Any) -> torch.Tensor:
    """The sum of the mean robot loss and the mean web loss."""
    losses = policy.losses(batch)
    parts = [torch.cat([out.loss_M for out in losses.robots])] if losses.robots else []
    parts += [] if losses.web is None else [losses.web.loss_M]
    return torch.stack([part.mean() for part in parts]).sum()


def with_lightning(path: Path, changes: list[str], pairs: Pairs) -> Any:
    """``vla train``; returns the policy."""
    seen: list[Any] = []

    class Callback(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            seen[:] = [pl_module]
            pairs.after_step(pl_module, trainer.optimizers[0])

    make = lightning.Trainer.__init__

    def with_callback(self: Any, *a: Any, callbacks: Any = (), **k: Any) -> None:
        make(self, *a, callbacks=[*callbacks, Callback()], **k)

    lightning.Trainer.__init__ = with_callback  # type: ignore[method-assign]
    _until_enough(lambda: train_from_file(str(path), changes, progress=False))
    return seen[0]


def with_hugging_face(path: Path, changes: list[str], pairs: Pairs) -> Any:
    """``transformers.Trainer`` with its own optimiser; returns the policy."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    config = load_config(path, changes, RunConfig)
    options = config.train
    torch.set_num_threads(options.threads)
    lightning.seed_everything(options.seed, verbose=False)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True)
    policy = make_policy(config, folder, sample_chunks(config.data))

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, rows: torch.Tensor, batch: Any) -> dict[str, torch.Tensor]:
            return {"loss": bare_loss(self.policy, batch)}

    class Callback(TrainerCallback):
        def on_step_end(self, *_: Any, **k: Any) -> None:
            pairs.after_step(policy, getattr(k["optimizer"], "optimizer", k["optimizer"]))

    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        max_steps=options.steps,
        per_device_train_batch_size=1,  # an item of the data is a batch
        learning_rate=config.optim.lr,
        weight_decay=config.optim.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=config.optim.warmup_steps,
        max_grad_norm=config.optim.grad_clip_norm,
        logging_steps=options.log_every,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    streams = Streams(config.data, options.batch_size, options.seed, options.val_windows)
    trainer = Trainer(
        Wrapped(),
        arguments,
        # accelerate reads the number of rows from the first tensor
        data_collator=lambda items: {"rows": torch.zeros(items[0].size), "batch": items[0]},
        train_dataset=streams.train_dataloader().dataset,
        callbacks=[Callback()],
    )
    _until_enough(trainer.train)
    return policy


def _until_enough(train: Callable[[], Any]) -> None:
    with contextlib.suppress(_Enough):
        train()


LOOPS = {"lightning": with_lightning, "hugging_face": with_hugging_face}


def pack_small(folder: Path) -> list[str]:
    """Pack small data sets; returns the changes of the configuration that select them."""
    for name, count in (("robot", "source.episodes=400"), ("web", "source.samples=1600")):
        changes = [count, "shard_size=50"]
        pack_from(ROOT / "configs" / "pack" / f"emergent_{name}.yaml", folder / name, changes)
    return [f"data.datasets.{name}={folder / name}" for name in ("robot", "web")]


def main() -> None:
    """Measure as the JSON says; prints a line of JSON."""
    told = json.loads(sys.argv[1])
    data = pack_small(Path(told["data"]))
    path = HERE / "config.yaml"
    with tempfile.TemporaryDirectory() as folder:
        changes = [
            *data,
            *told["changes"],
            f"output_dir={folder}/run",
            f"train.threads={told['threads']}",
            f"train.log_every={told['block']}",
        ]
        torch.set_num_threads(told["threads"])
        config = load_config(path, changes, RunConfig)
        pairs = Pairs(config, told["seconds"], told["block"])
        policy = LOOPS[told["loop"]](path, changes, pairs)
    print(
        json.dumps(
            {
                "commit": commit(),
                "parameters": count_parameters(policy)[0],
                "batch": config.train.batch_size,
                "torch": torch.__version__,
            }
            | pairs.found()
        )
    )
    sys.stdout.flush()
    os._exit(0)  # Lightning's and Hugging Face's clean-up is of no use here


if __name__ == "__main__":
    main()
