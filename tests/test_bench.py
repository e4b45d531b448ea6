"""``vla bench``: all ways to decode give the tokens of Hugging Face's ``generate``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY
from policies import make_policy

from vla.cli.bench import bench
from vla.errors import ConfigError
from vla.evaluation.bench import measure
from vla.evaluation.bench_text import report

POLICY = REPOSITORY / "experiments" / "tabletop_seen" / "policy"


def test_the_kept_policy_needs_fewer_passes_and_writes_the_tokens_of_generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(POLICY, steps=6, device="cpu", out=tmp_path / "bench.json", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["equal_tokens"] and found["generate"]["equal_steps"] == found["generate"]["of"]
    plain, drafted = (
        found["ways"][f"{way}, static cache"] for way in ("one token a pass", "drafts")
    )
    assert plain["passes"] == plain["tokens"] == drafted["tokens"]
    assert drafted["passes"] < 0.6 * plain["passes"]
    assert json.loads((tmp_path / "bench.json").read_text()) == found
    text = report(found)
    assert "tokens: all ways give the same" in text and "Hugging Face generate" in text


def test_random_images_are_used_without_a_simulator() -> None:
    policy = make_policy(head={"name": "token"}).robot()
    found = measure(policy, 2, False)
    assert not found["simulator"] and found["equal_tokens"]


def test_a_policy_without_text_is_refused() -> None:
    policy = make_policy(head={"name": "regression"}).robot()
    with pytest.raises(ConfigError, match="generates no text"):
        measure(policy, 1, False)
