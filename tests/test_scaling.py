"""Fits recover known constants; a ladder plans, skips, continues and reports."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import pytest
from conftest import REPOSITORY
from filelock import FileLock
from scaling_rows import made_rows

from vla.config import load_config
from vla.errors import ConfigError
from vla.experiments.scaling.analysis import as_runs, fit_all, fit_rows
from vla.experiments.scaling.ladder import (
    ScaleConfig,
    SweepRun,
    load_ladder,
    read_rows,
    stages,
    sweep_runs,
)
from vla.experiments.scaling.launchers import check_launcher, submit
from vla.experiments.scaling.report import fit_table, form_table, write_report
from vla.experiments.scaling.run import collect, run_ladder
from vla.training import measure
from vla.training.run import RunConfig
from vla.utils.csv_tables import block, read_table


def test_the_report_follows_from_the_rows(tmp_path: Path) -> None:
    rows = made_rows()
    fits = fit_all(rows, rounds=8)
    assert as_runs(rows).episodes.tolist() == [100.0] * 27
    held = fits.runs.where(fits.held_out)
    assert held.name == ["run-5-2-s0"]
    assert float(fits.law(held.n[0], held.d[0])) == pytest.approx(held.loss[0], rel=0.05)
    rows_by_name = {r["quantity"]: r for r in fit_rows(fits)}
    assert rows_by_name["fitted runs"]["value"] == "26"
    predicted = rows_by_name["held-out loss, predicted"]
    assert float(predicted["low"]) <= float(predicted["value"]) <= float(predicted["high"])
    assert float(rows_by_name["held-out loss, measured"]["value"]) == pytest.approx(
        held.loss[0], rel=1e-3
    )
    assert float(rows_by_name["odds factor of ten times the parameters"]["value"]) > 1
    assert fits.success is not None and fits.success.slope > 0
    write_report(rows, tmp_path, rounds=3)
    names = ("loss_by_size", "frontier", "success_by_size", "success_by_loss")
    assert all((tmp_path / f"{n}.png").stat().st_size > 5000 for n in names)
    assert read_table(tmp_path / "fit.csv") != []
    used = {r["form"]: r["used"] for r in read_table(tmp_path / "forms.csv")}
    assert used == {"power law with floor": "yes", "log-linear": "", "saturating": ""}
    # a ladder in progress, without the largest size at the most data
    runs = fit_all([r for r in rows if r["run"] != held.name[0]], rounds=3)
    assert runs.runs.where(runs.held_out).name == [runs.runs.name[int(runs.runs.flops.argmax())]]
    write_report(rows[:2], tmp_path / "few", rounds=3)
    assert not (tmp_path / "few").exists()


def test_cheap_runs_have_more_seeds_and_come_first(ladder: Path) -> None:
    config = load_ladder(ladder, [])
    flops = {("s", "few"): 1.0, ("s", "many"): 2.0, ("m", "few"): 3.0, ("m", "many"): 6.0}
    planned = sweep_runs(config, ladder.parent, flops)
    runs = [r.name for r in planned if r.stage == "run"]
    assert runs == [
        "run-s-few-s0",
        "run-s-few-s1",
        "run-s-many-s0",
        "run-s-many-s1",
        "run-m-few-s0",
        "run-m-many-s0",
    ]
    assert [r.name for r in planned if r.stage == "pretrain"] == [
        "pretrain-s-s0",
        "pretrain-s-s1",
        "pretrain-m-s0",
    ]
    assert [w[0].stage for w in stages(planned)] == ["pretrain", "run"]
    with pytest.raises(ConfigError, match="at least two sizes, one amount of data and one seed"):
        load_ladder(ladder, ["seeds=[]"])
    with pytest.raises(ConfigError, match=r"seeds: expected different ones, got \[1, 1\]"):
        load_ladder(ladder, ["seeds=[1,1]"])


@pytest.mark.parametrize(
    ("path", "least"),
    [
        ("experiments/scaling/ladder.yaml", (6, 3, 2)),
        ("configs/scaling/ladder_gpu.yaml", (6, 3, 2)),
        ("experiments/gpu/ladder/ladder.yaml", (3, 2, 1)),
        ("experiments/scaling_mt50/ladder.yaml", (5, 3, 2)),
    ],
)
def test_shipped_ladders_are_complete(path: str, least: tuple[int, int, int]) -> None:
    config, folder = load_ladder(REPOSITORY / path, []), (REPOSITORY / path).parent
    assert all(
        len(v) >= n for v, n in zip((config.sizes, config.data, config.seeds), least, strict=True)
    )
    planned = sweep_runs(
        config,
        folder,
        {(s, d): k + 1.0 for k, (s, d) in enumerate(product(config.sizes, config.data))},
    )
    seen = set()
    for sweep_run in planned:
        run = load_config(sweep_run.config, list(sweep_run.overrides), RunConfig)
        amount = run.train.steps, run.data.max_episodes_per_task
        seen.add((sweep_run.stage, str(run.policy["decoder"]), amount))
    # Every size and amount is another run.
    assert len(seen) == len(config.sizes) * (len(config.data) + bool(config.pretrain))


@pytest.mark.slow
def test_a_ladder_runs_skips_what_is_done_and_keeps_rows_without_runs(
    ladder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ladder(str(ladder), [], dry_run=True)
    out = capsys.readouterr().out
    assert (
        "10 of 10 runs to do" in out
        and "run-m-many-s0" in out
        and not (ladder.parent / "runs").exists()
    )
    run_ladder(str(ladder), ["seeds=[0]"])
    config = load_ladder(ladder, [])
    rows = read_rows(Path(config.out) / "results.csv")
    assert [r["run"] for r in rows] == [
        "run-m-few-s0",
        "run-m-many-s0",
        "run-s-few-s0",
        "run-s-many-s0",
    ]
    assert all(
        int(r["episodes"]) == 1 and float(r["val_loss_robot"]) > 0 and float(r["val_loss_web"]) > 0
        for r in rows
    )
    small, large = (next(r for r in rows if r["run"] == f"run-{s}-many-s0") for s in "sm")
    assert all(
        float(large[k]) > float(small[k]) for k in ("parameters_without_embeddings", "flops")
    )
    assert int(large["robot_samples"]) == 8  # four steps of four rows, half of them the robot's
    capsys.readouterr()
    shutil.rmtree(Path(config.runs) / "run-m-many-s0")  # its pretraining is there
    run_ladder(str(ladder), ["seeds=[0]", f"out={ladder.parent / 'other'}"], dry_run=True)
    assert "1 of 6 runs to do" in capsys.readouterr().out
    shutil.rmtree(config.runs)  # as in a fresh clone: the committed rows are what is known
    run_ladder(str(ladder), ["seeds=[0]"])
    assert not list(Path(config.runs).glob("run-*")) and collect(config) == rows
    assert "no fit: scaling fit: 3 runs" in capsys.readouterr().out
    write_report(rows[:1], ladder.parent)
    assert "no fit: scaling fit: 0 runs of 0 sizes" in capsys.readouterr().out


def test_a_run_that_another_process_locks_is_left_to_it(
    ladder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_ladder(ladder, ["seeds=[0]"])
    planned = sweep_runs(config, ladder.parent, {("s", "few"): 1.0, ("m", "few"): 2.0})
    Path(config.runs).mkdir()
    made: list[str] = []

    def pretend(sweep_run: SweepRun, config: ScaleConfig) -> str:
        made.append(sweep_run.name)
        (Path(config.runs) / sweep_run.name / "policy").mkdir(parents=True, exist_ok=True)
        return sweep_run.name

    monkeypatch.setattr("vla.experiments.scaling.launchers.execute", pretend)
    other = FileLock(Path(config.runs) / "pretrain-s-s0.lock")
    other.acquire()

    def wait(seconds: float) -> None:  # nothing is left that can be taken: the other one finishes
        assert made == ["pretrain-m-s0", "run-m-few-s0"]
        (Path(config.runs) / "pretrain-s-s0" / "policy").mkdir(parents=True)
        other.release()

    monkeypatch.setattr("vla.utils.locking.time.sleep", wait)
    assert sorted(submit(planned, config, "local")) == sorted(r.name for r in planned)
    assert made[2:] == ["pretrain-s-s0", "run-s-few-s0"]


def test_a_table_with_other_columns_is_rejected(ladder: Path) -> None:
    config = load_ladder(ladder, [])
    Path(config.out).mkdir()
    (Path(config.out) / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="expected the columns run, size"):
        collect(config)
    (Path(config.out) / "results.csv").unlink()
    with pytest.raises(ConfigError, match="--launcher moon: unknown"):
        check_launcher("moon")


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # submitit leaves its logs open
def test_submitit_executes_runs(ladder: Path) -> None:
    pytest.importorskip("submitit")
    config = load_ladder(ladder, [])
    (sweep_run,) = [
        r for r in sweep_runs(config, ladder.parent, {("s", "few"): 1.0}) if r.stage == "pretrain"
    ][:1]
    assert list(submit([sweep_run], config, "debug")) == ["pretrain-s-s0"]
    assert (Path(config.runs) / "pretrain-s-s0" / "policy" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_committed_fit_follows_from_its_rows() -> None:
    folder = REPOSITORY / "experiments" / "scaling"
    config = load_ladder(folder / "ladder.yaml", [])
    assert len(config.sizes) >= 6 and len(config.data) >= 3
    for changes in config.sizes.values():
        for data in config.data.values():
            load_config(folder / config.run, [*changes, *data], RunConfig)
    for tried in (folder, folder / "one_rate"):
        fits = fit_all(read_rows(tried / "results.csv"))
        assert read_table(tried / "fit.csv") == fit_rows(fits)
        if tried == folder:
            assert block(folder / "README.md", "fit") == fit_table(fits)
            assert block(folder / "README.md", "forms") == form_table(fits)


def test_sizes_with_equal_parameter_counts_are_refused_before_training(
    ladder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = {"parameters": 12345, "flops_step": 1.0, "step_s": 0.1}
    monkeypatch.setattr(measure, "measure", lambda *arguments: cost)
    with pytest.raises(
        ConfigError, match=r"sizes\.[ms]: the policy has 12,345 parameters, as many"
    ):
        run_ladder(str(ladder), [], dry_run=True)
