"""The policy of a run without weights, and batches like those of its data."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vla.config import build
from vla.data.datamodule import sample_chunks
from vla.data.manifest import load_manifest
from vla.data.remote import address
from vla.models.decoders.loading import read_architecture
from vla.models.decoders.stand_in import stand_in_processor, stand_in_tokenizer
from vla.policies.initialise import with_saved_token_ids
from vla.policies.spec import RobotSpec
from vla.training.config import RunConfig
from vla.training.measure import example_batch
from vla.training.optim import make_optimizer
from vla.training.planning.shapes import Building, ShapesOnly, make_fake
from vla.training.specs import make_robot_specs, parts_of_batches, run_tokenizer
from vla.types import ActionSpace, Batch

SIDE, ACTIONS, STATE = 224, 7, 8  # px, numbers; assumed for data that is not packed
_WORDS = Counter(
    ["pick", "up", "the", "red", "apple", "and", "put", "it", "into", "green", "basket"]
)


@dataclass
class Specimen:
    """A policy of fake tensors.

    parts: kinds of rows that a batch may have: robots, and "" for web rows.
    assumed: data sets that are not packed.
    """

    policy: Any
    chunks: dict[str, torch.Tensor]
    texts: int
    parts: set[str]
    assumed: tuple[str, ...]

    def batch(self, rows: int, mode: ShapesOnly) -> Batch:
        """``rows`` image rows of each robot."""
        batch = example_batch(self.policy.specs, rows, self.texts, self.chunks)
        decoder = getattr(self.policy, "decoder", None)
        if not getattr(decoder, "is_vlm", False):  # a processor reads the pixels
            for part in batch.robots:
                part.images_BVTCHW = mode.fake_copy(part.images_BVTCHW)
        return batch


def make_specimen(config: RunConfig, mode: ShapesOnly) -> Specimen:
    """Build the policy of a run from shapes; nothing is downloaded.

    A pretrained tokenizer is replaced by one with a token for each word and digit. Data sets that
    are not packed count as robot data with images of 224 px, 7 actions and 8 state dimensions.
    """
    paths = config.data.datasets.items()
    missing = tuple(n for n, p in paths if address(p) is None and not Path(p).exists())
    packed = _without(config, missing)
    specs: dict[str, RobotSpec] = {}
    words, parts = Counter(_WORDS), set[str]()
    kinds = {load_manifest(path).kind for path in packed.data.datasets.values()}
    chunks = sample_chunks(packed.data)
    if "episode" in kinds:
        specs, words = make_robot_specs(packed)
    if kinds:
        parts = parts_of_batches(packed)
    for name in missing:
        robot = config.data.robots.get(name, name)
        specs.setdefault(robot, _assumed_robot(config, name))
        chunks.setdefault(robot, torch.rand(64, config.data.window.horizon, ACTIONS) * 2 - 1)
        parts.add(robot)
    options, processor = _decoder_options(config, words)
    given: dict[str, Any] = {"specs": specs, "words": words, "chunks": chunks}
    if processor is not None:
        given["tokenizer"] = processor.tokenizer
    elif _pretrained(config) and not config.init_from:
        given["tokenizer"] = stand_in_tokenizer(words)
    else:
        with tempfile.TemporaryDirectory() as folder:
            given["tokenizer"] = run_tokenizer(config, words, Path(folder))
    with Building():
        policy = build("policy", options, pretrained=False, **given)
        if processor is not None:
            policy.decoder.use_processor(processor)
        if options.get("decoder", {}).get("quantize"):
            policy.decoder.lm.to(torch.bfloat16)
    make_fake(policy, mode)
    make_optimizer(policy, config.optim, config.train.steps)  # freezes optim.frozen
    texts = config.data.window.max_texts_per_image
    return Specimen(policy.train(), chunks, texts, parts, missing)


def _without(config: RunConfig, names: tuple[str, ...]) -> RunConfig:
    """The run without some of its data sets."""

    def kept(given: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in given.items() if k not in names}

    data = config.data
    tables = ("datasets", "sampling_weights", "robots", "cameras")
    changes: dict[str, Any] = {name: kept(getattr(data, name)) for name in tables}
    changes["relative"] = tuple(n for n in data.relative if n not in names)
    return replace(config, data=replace(data, **changes))


def _assumed_robot(config: RunConfig, name: str) -> RobotSpec:
    """A robot arm, for data that is not packed."""
    window = config.data.window
    cameras = config.data.cameras.get(name, window.cameras or ("top",))
    units = ("m",) * 3 + ("rad",) * 3 + ("closed",)
    space = ActionSpace(
        ("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
        units,
        (-1.0,) * ACTIONS,
        (1.0,) * ACTIONS,
        rate_hz=10.0,
    )
    sizes = {"actions": ACTIONS, "state": STATE}
    return RobotSpec(
        space,
        tuple(cameras),
        (SIDE, SIDE),
        history=window.history,
        horizon=window.horizon,
        statistics={field: _statistics(size) for field, size in sizes.items()},
        execution=config.execution,
    )


def _statistics(size: int) -> dict[str, Any]:
    """Statistics of even values from -1 to 1."""
    values = {"min": -1.0, "q01": -0.98, "q99": 0.98, "max": 1.0, "mean": 0.0, "std": 0.58}
    columns: dict[str, Any] = {k: [v] * size for k, v in values.items()}
    levels = torch.linspace(-1, 1, 257).tolist()
    return columns | {"quantiles": [[level] * size for level in levels]}


def _part(config: RunConfig) -> dict[str, Any]:
    """The language model's section of the policy."""
    return dict(config.policy.get("decoder") or config.policy.get("text") or {})


def _pretrained(config: RunConfig) -> bool:
    return bool(_part(config).get("model"))


def _decoder_options(config: RunConfig, words: Counter[str]) -> tuple[dict[str, Any], Any]:
    """The section ``policy:``, and the processor of a vision-language model or None."""
    options = dict(config.policy)
    if config.init_from:
        options = with_saved_token_ids(options, config.init_from)
    part = _part(config)
    if part.get("name") != "vlm":
        return options, None
    architecture = part.get("config") or read_architecture(part["model"])
    architecture, processor = stand_in_processor(architecture, words)
    return options | {"decoder": part | {"config": architecture}}, processor
