"""``vla zoo``: what there is to combine, and what a combination costs, measured."""

from __future__ import annotations

import inspect
import json
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vla.config import ConfigError, build, load_config, presets, registered
from vla.device import computing_in, resolve, wait_for
from vla.memory import peak_memory_mb
from vla.schema import Batch, RobotBatch
from vla.tuning import trainable

SLOTS = ("policy", "vision", "connector", "decoder", "head", "codec", "text")


def listing() -> dict[str, dict[str, dict[str, str]]]:
    """Slot -> components and presets -> name -> one line about it."""
    out = {}
    for slot in SLOTS:
        components = {name: (inspect.getdoc(cls) or "").split("\n")[0] for name, cls in registered(slot).items()}
        found = {}
        for name, path in presets(slot).items():
            first = path.read_text(encoding="utf-8").split("\n")[0]
            found[name] = first.removeprefix("# ") if first.startswith("#") else first
        out[slot] = {"components": components, "presets": found}
    return out


def show_listing() -> None:
    """The listing on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for slot, kinds in listing().items():
        for kind, rows in kinds.items():
            if rows:
                table = Table(title=f"{slot}: {kind}", title_justify="left", show_header=False)
                for name, words in rows.items():
                    table.add_row(name, words)
                console.print(table)


def example_batch(contracts: dict[str, Any], rows: int, segments: int, plans: bool) -> Batch:
    """Random pictures with ``segments`` instructions each, ``rows`` of every robot."""
    parts = []
    for robot, contract in contracts.items():
        space, (height, width) = contract.action_space, contract.image_size
        count = rows * segments
        low, high = torch.tensor(space.low), torch.tensor(space.high)
        shape = (rows, len(contract.cameras), contract.history, 3, height, width)
        parts.append(RobotBatch(
            robot=robot, images_BVTCHW=torch.randint(0, 256, shape, dtype=torch.uint8), instructions=["pick the red apple"] * count,
            plans=["128 128" if plans else ""] * count, actions_KHA=low + torch.rand((count, contract.horizon, space.dim)) * (high - low),
            mask_KH=torch.ones((count, contract.horizon), dtype=torch.bool), owner_K=torch.arange(rows).repeat_interleave(segments),
            sources=[robot] * rows, state_BTP=torch.zeros((rows, contract.history, contract.state_dim)) if contract.state_dim else None,
        ))  # fmt: skip
    return Batch(parts)


def measure(path: str, overrides: list[str], steps: int, device: str = "auto") -> dict[str, Any]:
    """Build the policy of a run's YAML and time it on random pictures: training in the run's precision, acting in the saved weights' (float32).

    Returns:
        parameters, trainable; flops_step (forward and backward of one batch); prefix_tokens an image row; action_tokens; batch; medians of step_s
        and act_s (one observation, batch 1); peak_memory_mb (of the device, or of this process on a CPU).
    """
    from vla.train import RunConfig, make_contracts, run_tokenizer

    config, device = load_config(path, overrides, RunConfig), resolve(device)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(0)
    contracts, words = make_contracts(config)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = run_tokenizer(config, words, Path(folder))
    policy = build("policy", config.policy, contracts=contracts, tokenizer=tokenizer, words=words, optim=config.optim).to(device)
    batch = example_batch(
        policy.contracts, config.train.batch_size, config.data.window.segments, bool(config.policy.get("head", {}).get("plan"))
    )
    batch = batch.to(device)
    total, learning = trainable(policy)
    optimizer = policy.configure_optimizers()["optimizer"]
    policy.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with computing_in(config.train.precision, device):
            loss = torch.cat([out.loss_M for out in policy.losses(batch).robots]).mean()
        loss.backward()
        optimizer.step()
        wait_for(device)

    counter = FlopCounterMode(display=False)
    with counter:
        step()
    times = _timed(step, steps)
    policy.eval()
    first = batch.robots[0]
    one, text, name = first.images_BVTCHW[:1], first.instructions[:1], first.robot
    felt = None if first.state_BTP is None else first.state_BTP[:1]
    with torch.no_grad():
        prefix = policy.prefix(one, name, felt).tokens_BND.shape[1] if hasattr(policy, "prefix") else None
        acts = _timed(lambda: policy.act(one, text, name, felt), steps)
    cuda = device.startswith("cuda")
    memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_memory_mb()
    return {
        "config": " ".join([path, *overrides]), "parameters": total, "trainable": learning, "flops_step": counter.get_total_flops(),
        "batch": config.train.batch_size, "prefix_tokens": prefix, "action_tokens": action_tokens(policy, first), "step_s": times, "act_s": acts,
        "peak_memory_mb": round(memory), "device": torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
    }  # fmt: skip


def run_zoo(arguments: list[str], measuring: bool, as_json: bool, steps: int, device: str) -> None:
    """``vla zoo``; every policy is measured in a process of its own, so that memory is its own."""
    overrides = [a for a in arguments if "=" in a]
    paths = [a for a in arguments if "=" not in a]
    if measuring != bool(paths):
        raise ConfigError(
            "zoo: --measure needs configurations of runs, and they need --measure: vla zoo --measure configs/demo_token.yaml"
        )
    if not measuring:
        return print(json.dumps(listing(), indent=1)) if as_json else show_listing()
    rows = []
    for path in paths:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(measure, path, overrides, steps, device).result())
    show_measured(rows, as_json)


def action_tokens(policy: Any, part: RobotBatch) -> float | None:
    """Mean length of an action's token string; None for heads that write none."""
    head: Any = policy.head(part.robot) if hasattr(policy, "heads") else None
    if not hasattr(head, "grammar"):
        return None
    symbols = head.codec.encode(policy.normaliser(part.robot)(part.actions_KHA), part.mask_KH.sum(1).tolist())
    strings = [head.grammar.targets(s) for s in symbols]
    return sum(map(len, strings)) / len(strings)


def _timed(call: Any, times: int) -> float:
    """Median seconds of ``call``, after one that is not counted."""
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
    from vla.report import print_table

    table = [
        {
            "config": r["config"], "parameters": f"{r['parameters'] / 1e6:.2f}M", "trainable": f"{r['trainable'] / 1e6:.2f}M",
            "GFLOP a step": f"{r['flops_step'] / 1e9:.1f}", "image tokens": str(r["prefix_tokens"] or "-"),
            "action tokens": f"{r['action_tokens']:.1f}" if r["action_tokens"] else "-", "step": f"{1000 * r['step_s']:.0f} ms (batch {r['batch']})",
            "act": f"{1000 * r['act_s']:.1f} ms", "memory": f"{r['peak_memory_mb']} MB",
        } for r in rows
    ]  # fmt: skip
    print_table(table, f"measured on {rows[0]['device']}, medians")
