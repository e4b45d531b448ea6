"""A ladder on a Ray cluster."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from vla.errors import ConfigError
from vla.experiments.scaling.ladder import load_ladder, sweep_runs
from vla.experiments.scaling.launchers import submit
from vla.experiments.scaling.run import run_ladder
from vla.utils.csv_tables import read_table

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray itself warns


@pytest.mark.slow
def test_a_local_cluster_executes_a_ladder(ladder: Path) -> None:
    changes = ["seeds=[0]", "slurm.cpus=1", "ray_address=local"]
    run_ladder(str(ladder), changes, "ray")
    config = load_ladder(ladder, changes)
    rows = read_table(Path(config.out) / "results.csv")
    assert {(r["size"], r["data"]) for r in rows} == {
        (size, data) for size in ("s", "m") for data in ("few", "many")
    }


def test_an_unreachable_cluster_is_an_error_within_seconds(ladder: Path) -> None:
    config = load_ladder(ladder, ["ray_address=127.0.0.1:1"])
    runs = sweep_runs(config, ladder.parent, {("s", "few"): 1.0})
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"ray_address 127\.0\.0\.1:1: no cluster there"):
        list(submit(runs[:1], config, "ray"))
    assert time.monotonic() - start < 30
