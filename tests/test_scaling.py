"""The fits find what made the data; a ladder plans, skips, resumes and reports."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from filelock import FileLock

from vla.config import ConfigError, load_config
from vla.scaling.fit import Law, bootstrap, fit, interval
from vla.scaling.ladder import COLUMNS, Rung, ScaleConfig, load_ladder, read_rows, rungs, waves
from vla.scaling.report import as_runs, fit_all, markdown, write_report
from vla.scaling.run import collect, run_ladder, submit
from vla.scaling.success import bootstrap_success, fit_success
from vla.tables import block
from vla.train import RunConfig

CHINCHILLA = Law(1.69, 406.4, 410.7, 0.34, 0.28)  # arXiv 2203.15556, equation 10


def grid(noise: float, seeds: int = 1, draw: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sizes, data = np.geomspace(5e7, 1e10, 8), np.geomspace(1e9, 5e11, 6)
    n, d = (v.ravel().repeat(seeds) for v in np.meshgrid(sizes, data))
    return n, d, CHINCHILLA(n, d) * np.exp(np.random.default_rng(draw).normal(0, noise, len(n)))


def test_known_constants_are_recovered() -> None:
    law = fit(*grid(0.0))
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(CHINCHILLA, name), rel=2e-3), name


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    inside = []
    for draw in range(5):
        n, d, loss = grid(0.01, seeds=2, draw=draw)
        laws = bootstrap(n, d, loss, rounds=40, seed=draw)
        for name in ("E", "alpha", "beta"):
            low, high = interval([getattr(law, name) for law in laws])
            inside.append(low < getattr(CHINCHILLA, name) < high and high - low > 1e-3)
    assert np.mean(inside) > 0.7  # 95 % intervals, 5 draws of three numbers that hang together
    assert float(fit(n, d, loss)(2e10, 1e12)) == pytest.approx(float(CHINCHILLA(2e10, 1e12)), rel=0.02)  # beyond all runs


def test_one_wild_run_does_not_bend_the_law() -> None:
    n, d, loss = grid(0.0)
    loss[17] *= 3
    law = fit(n, d, loss)
    assert law.alpha == pytest.approx(0.34, rel=0.02) and pytest.approx(1.69, rel=0.02) == law.E


def test_the_optimum_is_an_optimum() -> None:
    budget, per_sample = 1e21, 6.0
    best = float(CHINCHILLA.optimal_n(budget, per_sample))
    lowest = CHINCHILLA(best, budget / per_sample / best)
    assert all(lowest < CHINCHILLA(best * f, budget / per_sample / (best * f)) for f in (0.8, 0.97, 1.03, 1.25))
    with pytest.raises(ValueError, match="no compute-optimal size"):
        Law(1.0, 0.0, 1.0, 0.3, 0.3).optimal_n(budget, per_sample)


def test_too_few_runs_are_refused() -> None:
    n, d, loss = grid(0.0)
    with pytest.raises(ValueError, match="4 runs of 4 sizes and 1 amounts of data"):
        fit(n[:4], d[:4], loss[:4])
    with pytest.raises(ValueError, match="must be positive"):
        fit(n, d, -loss)


def test_the_binomial_curve_is_recovered() -> None:
    x = np.repeat(np.linspace(5, 7, 9), 2)
    truth = 1 / (1 + np.exp(-(-12 + 2 * x)))
    episodes = np.full(len(x), 400)
    wins = np.random.default_rng(1).binomial(episodes, truth)
    curve = fit_success(x, wins, episodes)
    assert curve.slope == pytest.approx(2, rel=0.15)
    low, high = interval([c.slope for c in bootstrap_success(x, wins, episodes, 60)])
    assert low < 2 < high
    assert np.isfinite(fit_success(x, episodes, episodes).slope)  # all won: no infinite slope
    with pytest.raises(ValueError, match="two different x"):
        fit_success(x[:1], wins[:1], episodes[:1])


def made_rows() -> list[dict[str, str]]:
    """Runs that follow a law, five sizes, three amounts of data, two seeds of the smaller ones."""
    law, rng, rows = Law(0.2, 30.0, 20.0, 0.4, 0.45), np.random.default_rng(0), []
    for k, n in enumerate(np.geomspace(1e5, 8e6, 6)):
        for m, d in enumerate((2e4, 6e4, 2e5)):
            for seed in (0, 1) if k < 3 else (0,):
                loss = float(law(n, d)) * float(np.exp(rng.normal(0, 0.004)))
                common = dict.fromkeys(COLUMNS, "") | {
                    "run": f"run-{k}-{m}-s{seed}", "size": str(k), "data": str(m), "seed": str(seed), "parameters": str(n * 1.2),
                    "parameters_without_embeddings": str(n), "flops": str(8 * n * d), "robot_samples": str(d), "val_loss_robot": str(loss),
                }  # fmt: skip
                for skill in ("pick", "near"):
                    wins = rng.binomial(50, 1 / (1 + np.exp(8 * (loss - 0.7))))
                    rows.append(common | {"skill": skill, "episodes": "50", "wins": str(wins)})
    return rows


def test_the_report_says_what_the_rows_say(tmp_path: Path) -> None:
    rows = made_rows()
    fits = fit_all(rows, rounds=30)
    assert as_runs(rows).episodes.tolist() == [100.0] * 27
    held = fits.runs.where(fits.held_out)
    assert held.name == ["run-5-2-s0"]
    assert float(fits.law(held.n[0], held.d[0])) == pytest.approx(held.loss[0], rel=0.05)
    text = markdown(fits)
    assert "26 runs" in text and "| run-5-2-s0 (held out) |" in text and "ten times the parameters" in text
    assert fits.success is not None and fits.success.slope > 0
    write_report(rows, tmp_path, rounds=30)
    names = ("loss_by_size", "frontier", "success_by_size", "success_by_loss")
    assert all((tmp_path / f"{n}.{kind}").stat().st_size > 5000 for n in names for kind in ("png", "svg"))
    begun = [r for r in rows if r["run"] != held.name[0]]  # a ladder in progress: the largest size has not seen the most data
    of = as_runs(begun)
    assert of.name[int(of.flops.argmax())] in markdown(fit_all(begun, rounds=3)).split("Held out")[1].split(")")[0]
    write_report(rows[:2], tmp_path / "few", rounds=3)
    assert not (tmp_path / "few").exists()


def test_cheap_runs_have_more_seeds_and_come_first(ladder: Path) -> None:
    config = load_ladder(ladder, [])
    flops = {("s", "few"): 1.0, ("s", "many"): 2.0, ("m", "few"): 3.0, ("m", "many"): 6.0}
    planned = rungs(config, ladder.parent, flops)
    runs = [r.name for r in planned if r.stage == "run"]
    assert runs == ["run-s-few-s0", "run-s-few-s1", "run-s-many-s0", "run-s-many-s1", "run-m-few-s0", "run-m-many-s0"]
    assert [r.name for r in planned if r.stage == "pretrain"] == ["pretrain-s-s0", "pretrain-s-s1", "pretrain-m-s0"]
    assert [w[0].stage for w in waves(planned)] == ["pretrain", "run"]
    with pytest.raises(ConfigError, match="at least two sizes, one amount of data and one seed"):
        load_ladder(ladder, ["seeds=[]"])


@pytest.mark.parametrize(("path", "least"), [("experiments/scaling/ladder.yaml", (6, 3, 2)), ("configs/scaling/ladder_gpu.yaml", (6, 3, 2)), ("experiments/gpu/ladder/ladder.yaml", (3, 2, 1))])  # fmt: skip
def test_shipped_ladders_are_whole(path: str, least: tuple[int, int, int]) -> None:
    config, folder = load_ladder(REPOSITORY / path, []), (REPOSITORY / path).parent
    assert all(len(v) >= n for v, n in zip((config.sizes, config.data, config.seeds), least, strict=True))
    planned = rungs(config, folder, {(s, d): k + 1.0 for k, (s, d) in enumerate(product(config.sizes, config.data))})
    seen = set()
    for rung in planned:
        run = load_config(rung.config, list(rung.overrides), RunConfig)
        seen.add((rung.stage, str(run.policy["decoder"]), run.train.steps))
    assert len(seen) == len(config.sizes) * (len(config.data) + 1)  # every size and amount is another run


@pytest.mark.slow
def test_a_ladder_runs_skips_what_is_done_and_keeps_rows_without_runs(ladder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_ladder(str(ladder), [], dry_run=True)
    out = capsys.readouterr().out
    assert "10 of 10 runs to do" in out and "run-m-many-s0" in out and not (ladder.parent / "runs").exists()
    run_ladder(str(ladder), ["seeds=[0]"])
    config = load_ladder(ladder, [])
    rows = read_rows(Path(config.out) / "results.csv")
    assert [r["run"] for r in rows] == ["run-m-few-s0", "run-m-many-s0", "run-s-few-s0", "run-s-many-s0"]
    assert all(int(r["episodes"]) == 1 and float(r["val_loss_robot"]) > 0 and float(r["val_loss_web"]) > 0 for r in rows)
    small, large = (next(r for r in rows if r["run"] == f"run-{s}-many-s0") for s in "sm")
    assert all(float(large[k]) > float(small[k]) for k in ("parameters_without_embeddings", "flops"))
    assert int(large["robot_samples"]) == 8  # four steps of four rows, half of them the robot's
    capsys.readouterr()
    shutil.rmtree(Path(config.runs) / "run-m-many-s0")  # its pretraining is there
    run_ladder(str(ladder), ["seeds=[0]", f"out={ladder.parent / 'other'}"], dry_run=True)
    assert "1 of 6 runs to do" in capsys.readouterr().out
    shutil.rmtree(config.runs)  # as in a fresh clone: the committed rows are what is known
    run_ladder(str(ladder), ["seeds=[0]"])
    assert not list(Path(config.runs).glob("run-*")) and collect(config) == rows
    assert "no fit yet: scaling fit: 3 runs" in capsys.readouterr().out
    write_report(rows[:1], ladder.parent)
    assert "no fit yet: scaling fit: 0 runs of 0 sizes" in capsys.readouterr().out


def test_a_run_another_process_holds_is_left_to_it(ladder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_ladder(ladder, ["seeds=[0]"])
    planned = rungs(config, ladder.parent, {("s", "few"): 1.0, ("m", "few"): 2.0})
    Path(config.runs).mkdir()
    made: list[str] = []

    def pretend(rung: Rung, config: ScaleConfig) -> str:
        made.append(rung.name)
        (Path(config.runs) / rung.name / "policy").mkdir(parents=True, exist_ok=True)
        return rung.name

    monkeypatch.setattr("vla.scaling.run.carry_out", pretend)
    other = FileLock(Path(config.runs) / "pretrain-s-s0.lock")
    other.acquire()

    def wait(seconds: float) -> None:  # nothing is left that can be taken: the other one finishes
        assert made == ["pretrain-m-s0", "run-m-few-s0"]
        (Path(config.runs) / "pretrain-s-s0" / "policy").mkdir(parents=True)
        other.release()

    monkeypatch.setattr("vla.scaling.run.time.sleep", wait)
    assert sorted(submit(planned, config, "local")) == sorted(r.name for r in planned)
    assert made[2:] == ["pretrain-s-s0", "run-s-few-s0"]


def test_foreign_results_are_refused(ladder: Path) -> None:
    config = load_ladder(ladder, [])
    Path(config.out).mkdir()
    (Path(config.out) / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="its columns are not run, size"):
        collect(config)
    (Path(config.out) / "results.csv").unlink()
    with pytest.raises(ConfigError, match="choose local, slurm or ray"):
        list(submit([], config, "moon"))


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # submitit leaves its logs open
def test_submitit_carries_rungs_out(ladder: Path) -> None:
    pytest.importorskip("submitit")
    config = load_ladder(ladder, [])
    (rung,) = [r for r in rungs(config, ladder.parent, {("s", "few"): 1.0}) if r.stage == "pretrain"][:1]
    assert list(submit([rung], config, "debug")) == ["pretrain-s-s0"]
    assert (Path(config.runs) / "pretrain-s-s0" / "policy" / "model.safetensors").is_file()


def test_the_committed_ladder_is_whole() -> None:
    folder = REPOSITORY / "experiments" / "scaling"
    config = load_ladder(folder / "ladder.yaml", [])
    assert len(config.sizes) >= 6 and len(config.data) >= 3
    for changes in config.sizes.values():
        for data in config.data.values():
            load_config(folder / config.run, [*changes, *data], RunConfig)
    for tried in (folder, folder / "one_rate"):
        assert (tried / "report.md").read_text() == markdown(fit_all(read_rows(tried / "results.csv")))
    assert block(folder / "README.md", "report") == (folder / "report.md").read_text().strip()
