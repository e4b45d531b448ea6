"""``vla bench``: latency of a policy, step by step, beside Hugging Face's ``generate``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.errors import ConfigError
from vla.evaluation.bench_baselines import constraint_of, generate_baseline, read_time_ms
from vla.evaluation.bench_ways import ways_to_decode
from vla.evaluation.rollout import SEED, open_benchmark
from vla.inference.inputs import Observation, to_images, to_state
from vla.models.prompts import robot_prompt
from vla.policies.bound import BoundPolicy
from vla.policies.checkpoint import load_policy
from vla.utils.device import synchronize
from vla.utils.io import write_json
from vla.utils.memory import peak_memory_mb
from vla.utils.progress import Progress

_WARM_UP = 5  # steps that are not counted


def _observations(policy: BoundPolicy, actions: list[np.ndarray]) -> Iterator[Observation]:
    """Observations of rollouts with the last of ``actions``; of random images without a simulator.

    A new episode begins where one ends.
    """
    spec, random = policy.spec, np.random.default_rng(0)
    if not spec.benchmark:
        shape = (*spec.image_size, 3)
        while True:
            images = {c: random.integers(0, 256, shape, dtype=np.uint8) for c in spec.cameras}
            state = {"state": np.zeros(spec.state_dim, np.float32)} if spec.state_dim else {}
            yield {"images": images, "instruction": "pick up the object", **state}
    benchmark = open_benchmark(spec.benchmark, spec.cameras)
    tasks, episode = benchmark.tasks(), 0
    while True:
        env = benchmark.make_env(tasks[episode % len(tasks)])
        observation, ended = env.reset(seed=SEED + episode)[0], False
        while not ended:
            yield observation
            observation, _, terminated, truncated, _ = env.step(actions[-1])
            ended = terminated or truncated
        env.close()
        episode += 1


@torch.no_grad()
def measure(
    policy: BoundPolicy, steps: int, compiled: bool, quantize: str | None = None
) -> dict[str, Any]:
    """Latency of ``steps`` consecutive steps in milliseconds, in all ways to decode.

    All ways decode every step, one after the other, so that a change of the machine's speed
    meets all of them.

    Args:
        policy: a policy whose head generates text, of one frame.
        compiled: see ``speed_up``.
        quantize: ``int8`` also measures a copy of the decoder with such weights.

    Raises:
        ConfigError: the head generates no text, or the policy needs frame history.
    """
    model: Any = policy.policy.eval()
    if not hasattr(policy.policy, "head") or not hasattr(model.head(policy.robot), "plan_format"):
        raise ConfigError("vla bench: this policy generates no text; give one with a token head")
    if policy.spec.history > 1:
        raise ConfigError("vla bench: policies with frame history are not measured")
    head, decoder, takes = model.head(policy.robot), model.decoder, model.decoder.drafts
    ways = ways_to_decode(policy, compiled, quantize)
    static = decoder.static
    exact = [way for way in ways if way.exact]
    baseline, theirs, vision, same, equal = generate_baseline(decoder), [], [], 0, True
    actions: list[np.ndarray] = []
    observations = _observations(policy, actions)
    with Progress("bench", steps + _WARM_UP, "steps") as bar:
        for _ in range(steps + _WARM_UP):
            observation = next(observations)
            images = to_images(observation, policy.spec)[None].to(model.device)
            dim = policy.spec.state_dim
            state = to_state(observation, dim)[None] if dim else None
            begun = time.perf_counter()
            prefix = model.prefix(images, policy.robot, state)
            synchronize(model.device)
            vision.append(1e3 * (time.perf_counter() - begun))
            made = {w: w.predict(head, prefix, observation["instruction"]) for w in ways}
            ids = [way.draft.ids for way in exact]
            equal = equal and all(one == ids[0] for one in ids)
            for way in ways[len(exact) :]:
                way.compare(ids[0])
            if baseline is not None:
                prompt = robot_prompt(observation["instruction"])
                begun = time.perf_counter()
                baseline(prefix, prompt, len(ids[0]))
                synchronize(model.device)
                theirs.append(1e3 * (time.perf_counter() - begun))
                legal = constraint_of(head, decoder)
                same += baseline(prefix, prompt, len(ids[0]), legal) == ids[0]
            chunk, _ = model.to_robot_units(made[exact[-1]], policy.robot, state)
            actions.append(chunk[0, 0])
            bar.advance()
    decoder.drafts, decoder.static = takes, static
    kept = slice(_WARM_UP, None)
    found: dict[str, Any] = {
        "steps": steps,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "simulator": bool(policy.spec.benchmark),
        "pass": static.form if static else None,
        "equal_tokens": equal,
        "vision_ms": _median(vision[kept]),
        "ways": {way.name: _summary(way.rows[kept]) for way in ways},
        "bound_ms": read_time_ms(decoder),
        "peak_memory_mb": peak_memory_mb(),
    }
    if len(exact) < len(ways):
        found["quantized"] = {"weights": quantize} | ways[-1].agreement()
    if baseline is not None:
        found["generate"] = _times(theirs[kept]) | {"equal_steps": same, "of": len(theirs)}
    return found


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def _times(values: list[float]) -> dict[str, float]:
    p99 = float(np.percentile(values, 99))
    return {"p50_ms": _median(values), "p99_ms": round(p99, 3)}


def _summary(rows: list[dict[str, float]]) -> dict[str, float]:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    steps = [v for v in columns["step_ms"] if v == v]  # a text of one pass has no decoding step
    return _times(columns["ms"]) | {
        "prefill_ms": _median(columns["prefill_ms"]),
        "decode_ms": _median(columns["decode_ms"]),
        "step_ms": _median(steps) if steps else 0.0,
        "passes": round(statistics.mean(columns["passes"]), 2),
        "tokens": round(statistics.mean(columns["tokens"]), 2),
    }


def run_bench(
    folder: Path,
    robot: str | None,
    device: str,
    steps: int,
    compiled: bool,
    quantize: str | None,
    out: Path | None,
) -> dict[str, Any]:
    """The results of ``measure`` for a saved policy; JSON to ``out`` if given."""
    found = measure(load_policy(folder, device).robot(robot), steps, compiled, quantize)
    if out is not None:
        write_json(out, found)
    return found
