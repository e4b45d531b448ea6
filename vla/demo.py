"""``vla demo``: the main job on the embedded default, end to end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning

from vla.config import build, configs_dir, load_config
from vla.data.pack import pack_from
from vla.decoders.text import robot_prompt
from vla.evaluate import PolicyActor, Result, evaluate, to_images
from vla.film import animation, contact_sheet
from vla.heads.token import ACTION_WORD
from vla.policy import VLAPolicy
from vla.report import default_environment, plot_curves, print_table, section, table_rows, write_html
from vla.saving import save_policy
from vla.train import RunConfig, make_contracts, run_tokenizer, train

SHORT_PACK = {"robot": ["source.episodes=400"], "web": ["source.samples=600"]}
SHORT_TRAIN = ["train.steps=60", "train.val_every=30", "train.log_every=10", "train.save_every=20", "optim.warmup=10"]


def run_demo(out: Path, short: bool = False) -> Path:
    """Pack, pretrain on the web, train the token policy and the regression baseline from there, evaluate both and an untrained one,
    write ``report.html``.

    Every step leaves a file behind, so a repeated call continues where an interrupted one stopped.
    """
    started = time.time()
    configs, episodes = configs_dir(), 40 if short else 200
    # 1. data
    for name in ("robot", "web"):
        pack_from(configs / "pack" / f"demo_{name}.yaml", out / "data" / name, SHORT_PACK[name] if short else [])
    # 2. policies
    policies: dict[str, Path] = {}
    for name in ("web", "token", "regression"):
        places = [f"run={out / name}", *(f"data.datasets.{d}={out / 'data' / d}" for d in ("robot", "web"))]
        if name != "web":
            places.append(f"init={policies['web']}")
        config = load_config(configs / f"demo_{name}.yaml", [*places, *(SHORT_TRAIN if short else [])], RunConfig)
        policies[name] = train(config)
        if name == "token":
            policies["untrained"] = _untrained(config, out / "untrained")
    # 3. closed loop
    results: dict[str, list[Result]] = {}
    films: list[Any] = []
    for name in ("untrained", "regression", "token"):
        results[name], shown = _evaluated(policies[name], out / f"eval_{name}.json", episodes, film=8 if name == "token" else 0)
        films = shown or films
    # 4. table and page
    rows = table_rows(results)
    print_table(rows, f"pick the named one of four, {episodes} episodes a policy, the same scenes for all")
    minutes = (time.time() - started) / 60
    return _page(out, rows, policies["token"], films, results["token"], minutes)


def _untrained(config: RunConfig, directory: Path) -> Path:
    """The token policy with random weights, saved like any other."""
    if not directory.is_dir():
        contracts, words = make_contracts(config)
        lightning.seed_everything(config.train.seed, verbose=False)
        policy = build("policy", config.policy, contracts=contracts, tokenizer=run_tokenizer(config, words, Path(config.run)))
        save_policy(policy, config.policy, directory)
    return directory


def _evaluated(directory: Path, path: Path, episodes: int, film: int) -> tuple[list[Result], list[Any]]:
    """Results from the file of an earlier call, or fresh ones; films are always made anew (a few episodes)."""
    policy = VLAPolicy.load(directory)
    options, skills = default_environment(policy.contract)
    if path.is_file():
        results = [Result(**row) for row in json.loads(path.read_text(encoding="utf-8"))["episodes"]]
        films = evaluate(policy, "vla/Tabletop-v0", options, film, skills, film=film, progress=False)[1] if film else []
        return results, films
    return evaluate(policy, "vla/Tabletop-v0", options, episodes, skills, path, film=film)


def action_example(directory: Path) -> str:
    """Prompt, action string and robot units of one real observation."""
    import gymnasium as gym

    policy = VLAPolicy.load(directory)
    options, _ = default_environment(policy.contract)
    env: Any = gym.make("vla/Tabletop-v0", disable_env_checker=True, **options)
    observation, _ = env.reset(seed=1)
    made = policy.plan_and_act(
        to_images([observation], policy.contract.cameras), [observation["instruction"]], next(iter(policy.contracts))
    )
    action = PolicyActor(policy)([0], [observation])[0]
    space = policy.contract.action_space
    units = "  ".join(f"{n} {v:+.3f} {u}" for n, v, u in zip(space.names, action, space.units, strict=True))
    plan = "".join(f" {p} {ACTION_WORD}" for p in made.plans)
    return f"{robot_prompt(observation['instruction'])}{plan}{policy.head().text(made.unit_BHA[0])}\n{units}"


def _page(out: Path, rows: list[dict[str, str]], token: Path, films: list[Any], results: list[Result], minutes: float) -> Path:
    sheet_path = out / "rollouts.png"
    contact_sheet(films, results).save(sheet_path)
    runs = {"web only": out / "web", "token": out / "token", "regression": out / "regression"}
    curves = plot_curves(runs, out / "curves.png")
    intro = [
        "A vision-language-action policy, trained from nothing: first on web-like pictures with questions, then on these and expert demonstrations together. "
        "It sees 64 px images and reads an instruction; it answers with eight numbers written as text. Chance of the right tile is 1 in 4.",
        f"This call took {minutes:.1f} minutes (an interrupted demo continues, so earlier calls may have done a share).",
    ]
    sections = [
        section(
            "What the policy writes",
            "Prompt and answer for one picture, and the same answer in robot units.",
            pre=action_example(token),
        ),
        section(
            "Rollouts, moving",
            "Eight evaluation episodes of the token policy; a green frame means success.",
            animation(films, results),
            "webp",
        ),
        section("Rollouts, frame by frame", "Time runs to the right.", sheet_path.read_bytes()),
        section("Learning curves", "Thin: training batches. Thick: held-out shards.", curves),
    ]
    return write_html(out / "report.html", "vla demo: pick the named one of four", intro, rows, sections)
