"""Robot specs and tokenizer of a training run, from its data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vla.data.datamodule import sample_chunks
from vla.data.manifest import Manifest, load_manifest, pooled_statistics
from vla.data.relative import relative_dims, relative_statistics
from vla.data.statistics import union_bounds
from vla.data.windows import camera_names
from vla.errors import ConfigError, DataError
from vla.models.decoders.text import encode, text_too_long
from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer
from vla.policies.folder import find_policy
from vla.policies.spec import RobotSpec, library_versions
from vla.training.config import RunConfig


def make_robot_specs(config: RunConfig) -> tuple[dict[str, RobotSpec], Counter[str]]:
    """Robot -> spec, and the word counts of all data sets, from the manifests.

    Raises:
        ConfigError: no robot data, or data sets of one robot do not fit together.
    """
    manifests = {name: load_manifest(path) for name, path in config.data.datasets.items()}
    words: Counter[str] = Counter()
    datasets: dict[str, list[str]] = {}  # robot -> its data sets
    for name, manifest in manifests.items():
        words.update(manifest.words)
        if manifest.kind == "episode":
            datasets.setdefault(config.data.robots.get(name, name), []).append(name)
    if not datasets:
        raise ConfigError(
            "data.datasets: no robot episodes among them; a policy needs an action space"
        )
    specs = {
        robot: _robot_spec(config, robot, names, [manifests[n] for n in names])
        for robot, names in datasets.items()
    }
    return specs, words


def parts_of_batches(config: RunConfig) -> set[str]:
    """The robots whose rows a batch may have, and "" for web rows."""
    data = config.data
    sampled = [name for name, weight in data.sampling_weights.items() if weight > 0]
    kinds = {name: load_manifest(data.datasets[name]).kind for name in sampled}
    return {data.robots.get(n, n) if kind == "episode" else "" for n, kind in kinds.items()}


def check_text_lengths(policy: Any, datasets: dict[str, str]) -> None:
    """DataError if a text of the data is longer than the decoder's table of positions."""
    decoder: Any = getattr(policy, "decoder", None)
    most = getattr(decoder, "max_text_tokens", None)
    if most is None:
        return
    for name, path in datasets.items():
        tokens = len(encode(decoder.tokenizer, load_manifest(path).longest_text))
        if tokens > most:
            raise DataError(f"data.datasets.{name}={path}: {text_too_long(tokens, most)}")


def _robot_spec(
    config: RunConfig, robot: str, names: list[str], manifests: list[Manifest]
) -> RobotSpec:
    """The spec of one robot from its data sets ``names``."""
    data, window, first = config.data, config.data.window, manifests[0]
    spaces = [m.action_space for m in manifests if m.action_space is not None]
    kinds = {(s.names, s.units, s.binary, s.integer) for s in spaces}
    if len(spaces) < len(names) or len(kinds) > 1:
        raise ConfigError(
            f"data.robots: {', '.join(names)} have different action dimensions, "
            f"so they are not one robot ({robot}); give them different names"
        )
    sizes = {f"{n}: {m.image_size}, {m.image_fit}" for n, m in zip(names, manifests, strict=True)}
    if len({(m.image_size, m.image_fit) for m in manifests}) > 1:
        raise ConfigError(
            f"data.robots: the data sets of robot {robot} have images of different size or fit "
            f"({'; '.join(sorted(sizes))}); pack them with the same source.mapping.size and fit"
        )
    statistics = pooled_statistics([data.datasets[n] for n in names])
    relative: tuple[int, ...] = ()
    if set(names) & set(data.relative):
        if not set(names) <= set(data.relative):
            raise ConfigError(
                f"data.relative: {', '.join(names)} are one robot ({robot}): "
                "name all of them or none"
            )
        relative = relative_dims(Path(data.datasets[names[0]]), first)
        chunks_NHA = sample_chunks(data, padded=False)[robot].numpy()
        statistics = statistics | {"relative": relative_statistics(chunks_NHA)}
    return RobotSpec(
        action_space=union_bounds(spaces),
        cameras=camera_names(data, names[0], first),
        image_size=first.image_size,
        image_fit=first.image_fit,
        history=window.history,
        horizon=window.horizon,
        statistics=statistics,
        versions=library_versions(),
        benchmark=first.benchmark,
        relative=relative,
        execution=config.execution,
    )


def run_tokenizer(config: RunConfig, words: Counter[str], folder: Path) -> Any:
    """The tokenizer of a run.

    It is the one of ``init_from``, else the one of the pretrained language model, else one that is
    trained on ``words`` and kept in ``folder/tokenizer``.
    """
    part = config.policy.get("decoder") or config.policy["text"]
    if config.init_from:
        return load_tokenizer(find_policy(config.init_from) / "tokenizer")
    if part.get("model"):
        return load_tokenizer(part["model"])
    saved = folder / "tokenizer"
    if not saved.is_dir():
        temporary = folder / "tokenizer.tmp"
        train_tokenizer(words, part.get("vocab_size", 2048)).save_pretrained(temporary)
        temporary.replace(saved)
    return load_tokenizer(saved)
