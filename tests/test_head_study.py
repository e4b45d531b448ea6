"""The study of all heads has every head, alone and after a plan, on equal samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY

from vla.config import load_config
from vla.config.reference import own_components
from vla.experiments.study.config import load_study
from vla.training.config import RunConfig

STUDY = Path("experiments/heads/every/study.yaml")


def test_every_head_is_compared_on_equal_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    study = load_study(STUDY)
    kinds, samples = set(), set()
    for name, recipe in study.recipes.items():
        assert recipe.config is not None
        run = load_config(recipe.config, recipe.change, RunConfig)
        if name == "web":
            continue
        head, options = run.policy["head"], run.train
        planned = bool(head.get("plan")) or head["name"] == "chain_of_thought"
        action = head.get("action", head)
        kinds.add((action["name"], action.get("codec", {}).get("name", ""), planned))
        samples.add((options.steps, options.batch_size, str(run.data.sampling_weights)))
        assert run.execution.steps_per_call(run.data.window.horizon) == 1
        assert planned == name.endswith("_plan") and recipe.init_from == "web"
    assert len(samples) == 1
    heads = {(head, "") for head in set(own_components("head")) - {"chain_of_thought"}}
    # The default codec has no name here.
    heads |= {("token", codec) for codec in set(own_components("codec")) - {"uniform"}}
    assert kinds == {(*head, planned) for head in heads for planned in (False, True)}
