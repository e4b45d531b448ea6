"""Tables in the experiments' READMEs are what their files say."""

from __future__ import annotations

import json

import pytest
from conftest import REPOSITORY

from vla.evaluate import Result, summary

DEMO = REPOSITORY / "experiments" / "demo"


@pytest.mark.parametrize("policy", ["token", "regression", "untrained"])
def test_demo_table_is_its_files(policy: str) -> None:
    episodes = [Result(**row) for row in json.loads((DEMO / f"eval_{policy}.json").read_text())["episodes"]]
    s = summary(episodes)["pick"]
    cells = f"{100 * s['success']:.1f} % | {100 * s['low']:.1f} to {100 * s['high']:.1f} | {100 * s['wrong_object']:.1f} % |"
    row = next(line for line in (DEMO / "README.md").read_text().splitlines() if line.startswith(f"| {policy}"))
    assert row.endswith(cells) and s["n"] == 200
