"""Forms of the law are chosen by left-out runs, and questions are answered from the fits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scaling_rows import made_rows
from typer.testing import CliRunner

from vla.errors import ConfigError
from vla.experiments.scaling.analysis import Fits, as_runs
from vla.experiments.scaling.ask import read_question, show, smallest
from vla.experiments.scaling.fit import Law
from vla.experiments.scaling.forms import FORMS, LogLinear, Saturating, choose, left_out_error

TRUE = {
    "power law with floor": Law(0.3, 40.0, 25.0, 0.4, 0.5),
    "log-linear": LogLinear(3.0, 0.08, 0.1),
    "saturating": Saturating(11.0, 6.0, 0.25, 0.45),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUE)
def test_the_form_that_made_the_runs_is_chosen(name: str) -> None:
    sizes, data = np.geomspace(1e5, 5e6, 5), np.array([250.0, 750.0, 2400.0])
    n, d = (v.ravel() for v in np.meshgrid(sizes, data))
    loss = TRUE[name](n, d)
    errors = {
        other: left_out_error(form, n, d, loss, form.fit(n, d, loss))
        for other, form in FORMS.items()
    }
    assert choose(errors) == name and errors[name] < 0.005
    fitted = FORMS[name].fit(n, d, loss)
    assert float(fitted(2e7, 1e4)) == pytest.approx(float(TRUE[name](2e7, 1e4)), rel=0.02)


def test_too_few_runs_to_leave_some_out_use_the_power_law() -> None:
    n, d = np.array([1.0, 2, 3, 1, 2, 3]) * 1e5, np.repeat([100.0, 300.0], 3)
    loss = TRUE["log-linear"](n, d)
    linear = FORMS["log-linear"]
    curve = linear.fit(n[:5], d[:5], loss[:5])
    error = left_out_error(linear, n[:5], d[:5], loss[:5], curve)
    assert math.isnan(error)
    assert choose({"power law with floor": error, "log-linear": error}) == "power law with floor"


def test_axes_are_no_part_of_the_law_and_d_is_what_the_ladder_names() -> None:
    rows = made_rows(amounts=(250, 750, 2400))
    more = [r | {"axis": "tasks", "run": "other"} for r in rows[:2]]
    runs = as_runs(rows + more, "demonstrations")
    assert set(runs.d) == {250, 750, 2400} and "other" not in runs.name
    with pytest.raises(ValueError, match="run run-0-0-s0 has no demonstrations"):
        as_runs(made_rows(), "demonstrations")


def test_the_smallest_value_is_found_or_said_to_be_missing() -> None:
    def falling(x: float) -> float:
        return 1 + 10 / x

    assert smallest(falling, 2.0, 1, 1e4) == pytest.approx(10)
    assert smallest(falling, 0.9, 1, 1e4) == math.inf
    assert smallest(falling, 99.0, 1, 1e4) == 1
    assert smallest(falling, float("nan"), 1, 1e4) == math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("success <= 0.6", 'expected "success >= NUMBER" or "loss <= NUMBER"'),
        ("wins >= 3", 'expected "success >= NUMBER" or "loss <= NUMBER"'),
        ("success >= 1", "success is a share"),
        ("loss <= 0", "a loss is larger than 0"),
    ],
)
def test_questions_without_answer_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_question(text)


def test_a_success_may_be_a_percentage() -> None:
    assert read_question("success >= 60 %") == read_question("success>=0.6")
    assert read_question("success > 5%").value == 0.05


def test_a_question_is_answered_from_finished_runs(ladder: Path) -> None:
    from vla.cli import app
    from vla.experiments.scaling.ladder import load_ladder, write_rows

    def ask(text: str, *more: str) -> tuple[int, str]:
        result = CliRunner(env={"COLUMNS": "200"}).invoke(
            app, ["scale", str(ladder), "--ask", text, *more]
        )
        return result.exit_code, result.output + str(result.exception or "")

    assert "results.csv is missing" in ask("success >= 0.6")[1]
    out = Path(load_ladder(ladder, []).out)
    write_rows(out / "results.csv", made_rows(amounts=(250, 750, 2400)))
    code, text = ask("success >= 0.5", "amount=demonstrations", "rounds=2")
    assert code == 0, text
    assert "within the measured range" in text and "extrapolation" in text
    assert "smallest number of distinct demonstrations, by size" in text and "a task" in text


def test_an_unreachable_loss_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    runs = as_runs(made_rows(amounts=(250, 750, 2400)), "demonstrations")
    law = Law(0.2, 30.0, 20.0, 0.4, 0.45)
    errors, curves = dict.fromkeys(FORMS, 0.0), dict.fromkeys(FORMS, law)
    form = "power law with floor"
    fits = Fits(runs, runs.n > 1e6, "demonstrations", law, errors, form, law, curves, [law], [law])
    show(fits, read_question("loss <= 0.1"), tasks=10)
    text = capsys.readouterr().out
    assert "within" not in text and text.count("not reached to not reached") == 9
    with pytest.raises(ConfigError, match="only a loss can be asked for"):
        show(fits, read_question("success >= 0.5"), tasks=10)
