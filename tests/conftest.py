"""Shared tiny data, packed once in a session, and run configurations."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell that starts the tests in the background makes them ignore Ctrl-C, which tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny networks are faster with one thread, and test processes share the cores.

    Runs set the number of threads of their configuration, also for the tests after them.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of two small data sets: robot (24 episodes) and web (40 samples)."""
    from vla.benchmarks.tabletop.scene import SceneConfig
    from vla.benchmarks.tabletop.sources import TabletopSource, WebSource
    from vla.benchmarks.tabletop.web.config import WebConfig
    from vla.data.pack import pack

    root = tmp_path_factory.mktemp("data")
    scene = SceneConfig(skills=("pick", "near"), cards=(0, 0), concepts=8)
    pack(
        TabletopSource(scene, 24, size=32),
        root / "robot",
        shard_size=6,
        val_fraction=0.25,
        progress=False,
    )
    pack(
        WebSource(WebConfig(concepts=8, include_web_only=False, size=32), 40),
        root / "web",
        shard_size=10,
        val_fraction=0.25,
        progress=False,
    )
    return {"robot": str(root / "robot"), "web": str(root / "web")}


TINY_POLICY: dict[str, Any] = {
    "name": "vla",
    "vision": {"name": "conv", "widths": [8, 16], "blocks": [0, 1], "image_size": 32},
    "connector": {"name": "mlp"},
    "decoder": {
        "name": "causal",
        "vocab_size": 800,
        "config": {
            "model_type": "gpt2",
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 256,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    },
    "head": {"name": "token"},
}


@pytest.fixture
def tiny_run(tiny_data: dict[str, str], tmp_path: Path) -> dict[str, object]:
    """A complete run configuration as plain data."""
    return {
        "policy": TINY_POLICY,
        "data": {
            "datasets": tiny_data,
            "sampling_weights": {"robot": 0.5, "web": 0.5},
            "shuffle": 60,
        },
        "output_dir": str(tmp_path / "run"),
        "train": {
            "steps": 6,
            "batch_size": 4,
            "log_every": 1,
            "val_every": 3,
            "save_every": 1,
            "val_windows": 8,
            "threads": 1,
        },
        "trainer": {"accelerator": "cpu"},
        "optim": {"warmup_steps": 2},
    }


@pytest.fixture
def ladder(tiny_run: dict[str, Any], tmp_path: Path) -> Path:
    """A scaling ladder: two sizes, two amounts of data, two seeds, and web pretraining."""
    run = tiny_run | {"train": tiny_run["train"] | {"steps": 2, "val_every": 2, "val_windows": 4}}
    web = {**run, "data": run["data"] | {"sampling_weights": {"web": 1.0}}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    (tmp_path / "web.yaml").write_text(yaml.safe_dump(web))
    layers = "policy.decoder.config.n_layer"
    plan = {
        "pretrain": "web.yaml",
        "run": "run.yaml",
        "sizes": {"s": [f"{layers}=1"], "m": [f"{layers}=2"]},
        "data": {"few": ["train.steps=2"], "many": ["train.steps=4"]},
        "seeds": [0, 1],
        "episodes": 1,
        "tasks": ["pick"],
        "out": str(tmp_path / "out"),
        "runs": str(tmp_path / "runs"),
    }
    path = tmp_path / "ladder.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path
