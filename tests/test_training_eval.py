"""Benchmark episodes during training: metrics, interruption, and errors before the first step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_policies import RecordingPolicy
from heavy_benchmark import Heavy

from vla.config import check
from vla.errors import ConfigError, EnvironmentFailed
from vla.evaluation.results import read_results
from vla.training.benchmark_eval import BenchmarkEval, check_benchmark
from vla.training.checkpoint_io import LAST, checkpoint_step
from vla.training.config import EvalConfig, RunConfig
from vla.training.run import train
from vla.training.run_folder import check_folder, read_summary
from vla.utils import notes


class Saver:
    """Asks to stop when it has been asked ``times`` times."""

    failure = None

    def __init__(self, times: float) -> None:
        self.times = times

    @property
    def stop_requested(self) -> bool:
        self.times -= 1
        return self.times < 0


class Logged:
    """A logger that keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))

    def save(self) -> None:
        """Nothing to write."""


@pytest.fixture
def heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = "robot", {"name": "heavy"}, (), Heavy.action_space
    monkeypatch.setattr("vla.training.benchmark_eval._robot_data", lambda config: found)
    monkeypatch.setattr("vla.training.benchmark_eval.open_benchmark", lambda *_: Heavy())


def test_an_interrupted_evaluation_is_completed_before_training_goes_on(
    heavy: None, tmp_path: Path
) -> None:
    options = EvalConfig(episodes=2, workers=0, every=10)
    config: Any = SimpleNamespace(output_dir=str(tmp_path), train=SimpleNamespace(eval=options))
    bound, logged = RecordingPolicy(Heavy.action_space), Logged()
    policy = SimpleNamespace(robot=lambda name: bound)
    trainer: Any = SimpleNamespace(global_rank=0, global_step=10, loggers=[logged])
    first = BenchmarkEval(config, Saver(4))
    first.on_validation_end(trainer, policy)
    assert logged.rows == [] and first.state_dict() == {"pending": True}
    again = BenchmarkEval(config, Saver(float("inf")))
    again.load_state_dict(first.state_dict())
    again.on_train_start(trainer, policy)
    ((step, metrics),) = logged.rows
    assert (
        step == 10 and metrics["eval/success"] == 0.5 and again.state_dict() == {"pending": False}
    )
    assert {"eval/success/left", "eval/success/mean_of_groups"} <= set(metrics)
    assert len(read_results(tmp_path / "training_eval" / "step-00000010.json")) == 6
    calls = len(bound.calls)  # a run that continues from an earlier step has these results
    again.on_validation_end(trainer, policy)
    assert len(bound.calls) == calls and logged.rows[1] == logged.rows[0]
    trainer.global_step = 15
    again.on_validation_end(trainer, policy)
    assert len(logged.rows) == 2


def test_a_failed_evaluation_loses_no_step(
    tiny_run: dict[str, Any],
    heavy: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise EnvironmentFailed("heavy, task a, seed 7, step 2: broken")

    monkeypatch.setattr("vla.training.benchmark_eval.evaluate", failing)
    tiny_run["train"] |= {"save_every": 100, "eval": {"episodes": 1, "every": 3}}
    folder = Path(tiny_run["output_dir"])
    for _ in range(2):  # the continued run repeats the evaluation
        with pytest.raises(EnvironmentFailed, match="task a, seed 7, step 2"):
            train(check(tiny_run, RunConfig, ""))
        assert checkpoint_step(folder / LAST) == 3
        assert "evaluation of step 3 failed" in capsys.readouterr().err
    tiny_run["train"]["eval"] = {"episodes": 0}
    assert train(check(tiny_run, RunConfig, "")) == folder / "policy"
    assert read_summary(folder)["steps"] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": "tabletopp"}, "tabletopp"),
        ({"tasks": ["pikc"]}, r"train\.eval\.tasks: .*no task or group 'pikc'"),
        ({"every": 4}, r"train\.eval\.every: expected a multiple of val_every \(3\), got 4"),
        ({"benchmark": {"name": "pusht", "nothing": 1}}, "nothing"),
    ],
)
def test_errors_are_found_before_training(
    tiny_run: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    tiny_run["train"] = tiny_run["train"] | {"eval": {"episodes": 1} | options}
    with pytest.raises(ConfigError, match=message):
        check_benchmark(check(tiny_run, RunConfig, ""))


def test_a_run_of_an_older_version_continues(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    folder = tmp_path / "run"
    (folder / "policy").mkdir(parents=True)
    train = dict(tiny_run["train"])
    (folder / "config.yaml").write_text(
        yaml.safe_dump(
            tiny_run | {"train": train | {"rollout_episodes": 2, "precision": "bf16-mixed"}}
        )
    )
    tiny_run["train"] = train | {"eval": {"episodes": 2}}
    tiny_run["trainer"] = {"precision": "bf16-mixed"}
    assert check_folder(folder, check(tiny_run, RunConfig, "")) == []


def test_data_without_a_benchmark_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vla.training.benchmark_eval._robot_data", lambda config: None)
    trainer: Any = SimpleNamespace(global_rank=0)
    for episodes, count in ((0, 0), (1, 1)):
        options = SimpleNamespace(eval=EvalConfig(episodes=episodes))
        config: Any = SimpleNamespace(output_dir=str(tmp_path), train=options)
        notes.note.cache_clear()
        BenchmarkEval(config, Saver(0)).on_fit_start(trainer, None)
        assert capsys.readouterr().err.count("train.eval.benchmark names one") == count
