"""The fine-tuning configuration on sets of 8 and 10 episodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY
from memory_data import MemorySource, make_episode

from vla.config import load_config
from vla.data.pack import pack
from vla.errors import DataError
from vla.training.run import RunConfig, train

SHORT = ["train.steps=2", "train.val_every=1", "train.batch_size=2", "trainer.accelerator=cpu"]


def finetune(folder: Path, episodes: int) -> Path:
    """Pack, and train two steps with ``configs/finetune.yaml``; returns the policy's folder."""
    pack(MemorySource([make_episode(i) for i in range(episodes)]), folder / "d", progress=False)
    changes = [f"data.datasets.robot={folder / 'd'}", f"output_dir={folder / 'run'}", *SHORT]
    config = load_config(REPOSITORY / "configs/finetune.yaml", changes, RunConfig)
    return train(config, progress=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("episodes", [8, 10])
def test_few_episodes_train_with_validation_and_early_stopping(
    episodes: int, tmp_path: Path
) -> None:
    saved = finetune(tmp_path, episodes)
    assert (saved / "model.safetensors").is_file() and (saved.parent / "best.ckpt").is_file()


def test_too_few_episodes_for_early_stopping_are_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    message = r"d: no validation samples, but train\.patience needs them; draw another one with"
    with pytest.raises(DataError, match=message):
        finetune(tmp_path, 2)
    assert not (tmp_path / "run").exists()
