"""``vla demo``: pack, train, evaluate and report, with the tabletop benchmark."""

from __future__ import annotations

import time
from pathlib import Path

import lightning
import numpy as np

from vla.benchmarks.base import EpisodeResult
from vla.config import build, configs_dir, load_config
from vla.data.pack import pack_from
from vla.evaluation.report import section, table_rows, write_html
from vla.evaluation.results import read_results
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.evaluation.video import animation, contact_sheet
from vla.inference.inputs import to_images
from vla.inference.runner import PolicyRunner
from vla.models.prompts import ACTION_WORD, robot_prompt
from vla.policies.checkpoint import load_policy, save_policy
from vla.training.config import RunConfig
from vla.training.curves import plot_curves
from vla.training.run import train
from vla.training.specs import make_robot_specs, run_tokenizer
from vla.utils.tables import print_table

TITLE = "vla demo: pick the named tile out of four"
DATASETS = ("robot", "web")
RUNS = ("web", "token", "regression")  # configs/demo_<run>.yaml; the others start from "web"
EVALUATED = ("untrained", "regression", "token")
VIDEOS = 8  # rollouts of the token policy in the report
SHORT_PACK = {"robot": ["source.episodes=400"], "web": ["source.samples=600"]}
SHORT_TRAIN = [
    "train.steps=60",
    "train.val_every=30",
    "train.log_every=10",
    "train.save_every=20",
    "optim.warmup_steps=10",
]
SHORT_NOTE = (
    "This is the short demo. It shows that every step works, and it teaches nothing: 60 training "
    "steps are too few to learn the task, so success rates near 0 are expected. Run `vla demo` "
    "without --short for policies that learn (about 20 minutes on two CPU cores)."
)

Evaluation = tuple[list[EpisodeResult], list[list[np.ndarray]]]  # results, frames of the videos


def run_demo(out: Path, short: bool = False) -> Path:
    """Train and evaluate three policies; returns the path of ``report.html``.

    A model is pretrained on web data. A token policy and a regression policy start from it, and an
    untrained policy is the baseline. Each step writes files under ``out``, so a repeated call
    continues after an interruption.

    Args:
        short: fewer data, steps and episodes, in the folder ``out/short``. It shows that everything
            works; the policies learn nothing.
    """
    started = time.time()
    out, episodes = (out / "short", 40) if short else (out, 200)
    for name in DATASETS:
        recipe = configs_dir() / "pack" / f"demo_{name}.yaml"
        pack_from(recipe, out / "data" / name, SHORT_PACK[name] if short else [])
    policies = _train_policies(out, short)
    results: dict[str, list[EpisodeResult]] = {}
    videos: list[list[np.ndarray]] = []
    for name in EVALUATED:
        results_file, count = out / f"eval_{name}.json", VIDEOS if name == "token" else 0
        results[name], frames = _evaluate(policies[name], results_file, episodes, count)
        videos = frames or videos
    rows = table_rows(results)
    print_table(rows, f"{TITLE}; {episodes} episodes per policy with the same seeds")
    if short:
        print(f"note: {SHORT_NOTE}")
    minutes = (time.time() - started) / 60
    intro = [SHORT_NOTE] if short else []
    return _write_report(out, intro, rows, policies["token"], (results["token"], videos), minutes)


def _train_policies(out: Path, short: bool) -> dict[str, Path]:
    """Train the runs in order; returns the folder of each policy, with the untrained one."""
    policies: dict[str, Path] = {}
    for name in RUNS:
        overrides = [
            f"output_dir={out / name}",
            *(f"data.datasets.{d}={out / 'data' / d}" for d in DATASETS),
            *([] if name == "web" else [f"init_from={policies['web']}"]),
            *(SHORT_TRAIN if short else []),
        ]
        config = load_config(configs_dir() / f"demo_{name}.yaml", overrides, RunConfig)
        policies[name] = train(config)
        if name == "token":
            policies["untrained"] = _save_untrained(config, out / "untrained")
    return policies


def _save_untrained(config: RunConfig, directory: Path) -> Path:
    """The policy of a run with random weights, saved like a trained one."""
    if not directory.is_dir():
        specs, words = make_robot_specs(config)
        lightning.seed_everything(config.train.seed, verbose=False)
        tokenizer = run_tokenizer(config, words, Path(config.output_dir))
        policy = build("policy", config.policy, specs=specs, tokenizer=tokenizer)
        save_policy(policy, config.policy, directory)
    return directory


def _evaluate(directory: Path, results_file: Path, episodes: int, videos: int) -> Evaluation:
    """Results and videos. An existing file of results is read, but videos are recorded again."""
    policy = load_policy(directory).robot()
    benchmark = open_benchmark(policy.spec.benchmark, policy.spec.cameras)
    tasks = benchmark.default_tasks()
    if not results_file.is_file():
        return evaluate(policy, benchmark, tasks, episodes, results_file, videos=videos)
    frames: list[list[np.ndarray]] = []
    if videos:
        _, frames = evaluate(policy, benchmark, tasks, videos, videos=videos, progress=False)
    return read_results(results_file), frames


def action_example(directory: Path) -> str:
    """Prompt and output of a token policy for one observation, and the action in robot units."""
    policy = load_policy(directory)
    spec = policy.spec
    benchmark = open_benchmark(spec.benchmark, spec.cameras)
    env = benchmark.make_env(benchmark.default_tasks()[0])
    observation, _ = env.reset(seed=1)
    env.close()
    images, instruction = to_images(observation, spec), observation["instruction"]
    robot = next(iter(policy.specs))
    prefix = policy.prefix(images[None].to(policy.device), robot)
    prediction = policy.head(robot).predict(policy.decoder, prefix, [instruction])
    action = PolicyRunner(policy.robot()).act([0], [observation])[0]
    space = spec.action_space
    units = "  ".join(
        f"{n} {v:+.3f} {u}" for n, v, u in zip(space.names, action, space.units, strict=True)
    )
    plan = "".join(f" {p} {ACTION_WORD}" for p in prediction.plans)
    text = policy.head().text(prediction.normalized_actions_BHA[0])
    return f"{robot_prompt(instruction)}{plan}{text}\n{units}"


def _write_report(
    out: Path,
    notes: list[str],
    rows: list[dict[str, str]],
    token: Path,
    evaluation: Evaluation,
    minutes: float,
) -> Path:
    """Write the figures and ``report.html``."""
    results, videos = evaluation
    sheet = out / "rollouts.png"
    contact_sheet(videos, results).save(sheet)
    runs = {"web only": out / "web", "token": out / "token", "regression": out / "regression"}
    curves = plot_curves(runs, out / "curves.png")
    intro = [
        *notes,
        "A small vision-language-action model learns from random weights: first from web images "
        "with questions, then from these and expert demonstrations together. Its inputs are 64 px "
        "images and an instruction. Its outputs are action tokens, one for each of eight action "
        "dimensions. A random choice of the tile succeeds in 1 of 4 episodes.",
        f"This call took {minutes:.1f} minutes. If it continued an interrupted demo, earlier calls "
        "took more.",
    ]
    sections = [
        section(
            "Prompt and output of the token policy",
            "For one image; below, the same action in robot units.",
            pre=action_example(token),
        ),
        section(
            "Rollouts",
            "Eight evaluation episodes of the token policy. A green frame means success.",
            animation(videos, results),
            "webp",
        ),
        section("Rollouts, frame by frame", "Time runs to the right.", sheet.read_bytes()),
        section("Learning curves", "Thin: training batches. Thick: validation episodes.", curves),
    ]
    return write_html(out / "report.html", TITLE, intro, rows, sections)
