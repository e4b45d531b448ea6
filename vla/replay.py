"""Recorded actions, played in an environment."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import vla.sim.tabletop  # noqa: F401  registers vla/Tabletop-v0
from vla.data.manifest import DataError, load_manifest, write_json
from vla.data.samples import read_json, read_steps
from vla.data.shards import untarred
from vla.evaluate import Result
from vla.sim.adapt import ImageEnvironment


def replay(
    data: Path, env_id: str, options: dict[str, Any], episodes: int
) -> tuple[list[Result], list[float | None], list[list[np.ndarray]]]:
    """Play the first ``episodes`` of the training split from where they began, if the environment can begin there (the tabletop can), else from a
    fresh reset.

    Returns:
        Outcomes, the largest difference between the environment's state and the recorded one (None where either has none), and films.

    Raises:
        DataError: no robot episodes, or the environment takes another number of actions.
    """
    manifest = load_manifest(data)
    if manifest["action_space"] is None:
        raise DataError(f"{data}: web pictures, not robot episodes")
    source = manifest["identity"]["source"]
    if env_id == "vla/Tabletop-v0" and source.get("name") == "tabletop":
        options = {
            "scene": source["scene"],
            "cameras": list(source["cameras"]),
            "size": source["size"],
            "layout": source["layout"],
        } | options
    env = ImageEnvironment(gym.make(env_id, disable_env_checker=True, **options), tuple(manifest["cameras"]))
    width = int(np.prod(env.action_space.shape or (0,)))
    names = manifest["action_space"]["names"]
    if width != len(names):
        raise DataError(f"{data}: {len(names)} action dims ({', '.join(names)}), {env_id} takes {width}")
    shards = iter([{"url": str(data / s)} for s in manifest["splits"]["train"]])
    results, apart, films = [], [], []
    for number, sample in enumerate(islice(untarred(data, shards), episodes)):
        meta, steps = read_json(sample), read_steps(sample)
        begin = {"recording": meta["info"]["recording"]} if "recording" in meta["info"] else None
        observation, info = env.reset(seed=number, options=begin)
        film, worst = [observation["images"][manifest["cameras"][0]]], None
        for t, action in enumerate(steps["actions"]):
            own = observation.get("state")
            if own is not None and "state" in steps and own.shape == steps["state"][t].shape:
                worst = max(worst or 0.0, float(np.abs(own - steps["state"][t]).max()))
            observation, _, terminated, truncated, info = env.step(action)
            film.append(observation["images"][manifest["cameras"][0]])
            if terminated or truncated:
                break
        results.append(Result(number, str(info.get("skill", "all")), meta["instruction"], bool(info.get("success", False)), t + 1))
        apart.append(worst)
        films.append(film)
    return results, apart, films


def run_replay(data: Path, env_id: str, episodes: int, out: Path | None, overrides: list[str]) -> None:
    """``vla replay``: table, and with ``out`` JSON, sheet and animation."""
    from vla.config import override
    from vla.film import save_films
    from vla.report import print_table, table_rows

    results, apart, films = replay(data, env_id, override({}, overrides), episodes)
    print_table(table_rows({str(data): results}), f"recorded actions in {env_id}")
    known = [a for a in apart if a is not None]
    if known:
        print(
            f"largest difference between the environment's state and the recorded one: median {np.median(known):.4g}, worst {max(known):.4g}"
        )
    if out is not None:
        rows = [asdict(r) | {"state_difference": a} for r, a in zip(results, apart, strict=True)]
        write_json(out / "results.json", {"data": str(data), "env": env_id, "episodes": rows})
        save_films(films[:12], results[:12], out / "replay")
