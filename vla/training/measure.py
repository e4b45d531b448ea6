"""``vla zoo --measure``: parameters, FLOPs, time and memory of the policy of a run."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vla.config import load_config
from vla.data.datamodule import sample_chunks
from vla.models.lora import count_parameters
from vla.training.optim import make_optimizer
from vla.types import Batch, RobotBatch
from vla.utils.device import autocast, resolve, synchronize
from vla.utils.memory import peak_memory_mb
from vla.utils.progress import track
from vla.utils.text import count


def example_batch(
    specs: dict[str, Any], rows: int, segments: int, chunks: Mapping[str, torch.Tensor]
) -> Batch:
    """``rows`` random images of every robot with ``segments`` instructions and plans each.

    ``chunks``: robot -> (N, H, A) actions of its data. Random actions would need more FAST tokens
    than real ones.
    """
    parts = []
    for robot, spec in specs.items():
        (height, width), count = spec.image_size, rows * segments
        shape = (rows, len(spec.cameras), spec.history, 3, height, width)
        parts.append(
            RobotBatch(
                robot=robot,
                images_BVTCHW=torch.randint(0, 256, shape, dtype=torch.uint8),
                instructions=["pick the red apple"] * count,
                plans=["128 128"] * count,  # heads without plans do not read them
                actions_KHA=chunks[robot][torch.arange(count) % len(chunks[robot])],
                mask_KH=torch.ones((count, spec.horizon), dtype=torch.bool),
                image_index_K=torch.arange(rows).repeat_interleave(segments),
                sources=[robot] * rows,
                state_BTP=torch.zeros((rows, spec.history, spec.state_dim))
                if spec.state_dim
                else None,
            )
        )
    return Batch(parts)


def measure(path: str, overrides: list[str], steps: int, device: str = "auto") -> dict[str, Any]:
    """Build the policy of a run's YAML and measure it on random images and actions of its data.

    A training step runs in the run's precision. Acting runs in float32, as for a saved policy. The
    weights are untrained, so generated plans and FAST actions have other lengths than later.

    Args:
        path: YAML of a run.
        overrides: ``key=value`` changes.
        steps: timed repetitions.
        device: as in ``vla.utils.device.resolve``.

    Returns:
        ``parameters`` and ``trainable``; ``flops_step`` (forward and backward of one batch);
        ``batch`` (rows); ``prefix_tokens`` (of an image row); ``action_tokens`` (mean);
        ``step_s`` and ``act_s`` (medians; acting on one observation); ``peak_memory_mb`` (of the
        GPU, or of this process); ``device``.
    """
    from vla.training.run import RunConfig, make_policy

    config, device = load_config(path, overrides, RunConfig), resolve(device)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(0)
    chunks = sample_chunks(config.data)
    with tempfile.TemporaryDirectory() as folder:
        policy: Any = make_policy(config, Path(folder), chunks).to(device)
    texts = config.data.window.max_texts_per_image
    batch = example_batch(policy.specs, config.train.batch_size, texts, chunks).to(device)
    parameters, trained = count_parameters(policy)
    flops, step_s = _measure_step(policy, batch, config, steps, device)
    prefix, act_s = _measure_act(policy, batch.robots[0], steps)
    cuda = device.startswith("cuda")
    memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_memory_mb()
    cpu = f"cpu, {count(torch.get_num_threads(), 'thread')}"
    return {
        "config": " ".join([path, *overrides]),
        "parameters": parameters,
        "trainable": trained,
        "flops_step": flops,
        "batch": config.train.batch_size,
        "prefix_tokens": prefix,
        "action_tokens": action_tokens(policy, batch.robots[0]),
        "step_s": step_s,
        "act_s": act_s,
        "peak_memory_mb": round(memory),
        "device": torch.cuda.get_device_name() if cuda else cpu,
    }


def _measure_step(
    policy: Any, batch: Batch, config: Any, steps: int, device: str
) -> tuple[float, float]:
    """FLOPs and median seconds of a training step."""
    optimizer = make_optimizer(policy, config.optim, config.train.steps)["optimizer"]
    policy.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.trainer.precision, device):
            loss = torch.cat([out.loss_M for out in policy.losses(batch).robots]).mean()
        loss.backward()
        optimizer.step()
        synchronize(device)

    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return counter.get_total_flops(), _timed(step, steps)


def _measure_act(policy: Any, part: RobotBatch, steps: int) -> tuple[int | None, float]:
    """Image tokens (None for policies without a prefix) and median seconds of one action."""
    policy.eval()
    images, texts, robot = part.images_BVTCHW[:1], part.instructions[:1], part.robot
    state = None if part.state_BTP is None else part.state_BTP[:1]
    prefix = None
    with torch.no_grad():
        if hasattr(policy, "prefix"):
            prefix = policy.prefix(images, robot, state).tokens_BND.shape[1]
        return prefix, _timed(lambda: policy.predict(images, texts, robot, state), steps)


def run_measurements(arguments: list[str], as_json: bool, steps: int, device: str) -> None:
    """``vla zoo --measure``: measure every policy in a process of its own, print a table or JSON.

    Args:
        arguments: YAMLs of runs, and ``key=value`` overrides for all of them.
    """
    overrides = [a for a in arguments if "=" in a]
    rows = []
    paths = [a for a in arguments if "=" not in a]
    for path in track(paths, "measure", unit="policies"):
        # peak memory is that of a process
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(measure, path, overrides, steps, device).result())
    show_measured(rows, as_json)


def action_tokens(policy: Any, part: RobotBatch) -> float | None:
    """Mean number of tokens of an action; None for heads without action tokens."""
    head: Any = policy.head(part.robot) if hasattr(policy, "heads") else None
    if not hasattr(head, "token_rules"):
        return None
    symbols = head.codec.encode(
        policy.normaliser(part.robot)(part.actions_KHA), part.mask_KH.sum(1).tolist()
    )
    strings = [head.token_rules.targets(s) for s in symbols]
    return sum(map(len, strings)) / len(strings)


def _timed(call: Any, times: int) -> float:
    """Median seconds of ``call``; a first call is not timed."""
    call()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def show_measured(rows: list[dict[str, Any]], as_json: bool) -> None:
    """A table, or JSON."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from vla.utils.tables import print_table

    table = [
        {
            "config": r["config"],
            "parameters": f"{r['parameters'] / 1e6:.2f}M",
            "trainable": f"{r['trainable'] / 1e6:.2f}M",
            "GFLOP a step": f"{r['flops_step'] / 1e9:.1f}",
            "image tokens": str(r["prefix_tokens"] or "-"),
            "action tokens": f"{r['action_tokens']:.1f}" if r["action_tokens"] else "-",
            "step": f"{1000 * r['step_s']:.0f} ms (batch {r['batch']})",
            "act": f"{1000 * r['act_s']:.1f} ms",
            "memory": f"{r['peak_memory_mb']} MB",
        }
        for r in rows
    ]
    print_table(table, f"measured on {rows[0]['device']}, medians")
