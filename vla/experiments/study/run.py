"""``vla study``: train and evaluate recipes on the same episodes and the same questions."""

from __future__ import annotations

from vla.errors import ConfigError
from vla.experiments.study.config import StudyConfig, load_study
from vla.experiments.study.execute import execute
from vla.experiments.study.latency import time_actions
from vla.experiments.study.measure import results_lock
from vla.experiments.study.report import write_report
from vla.experiments.study.reproduce import reproduce_recipes


def run_study(
    path: str,
    overrides: list[str],
    only: list[str],
    report_only: bool,
    reproduce: bool = False,
) -> None:
    """Run a study, or continue it; several processes may run the same study together.

    Args:
        path: the study's YAML.
        overrides: ``key=value`` changes of the study.
        only: names of recipes; empty: all.
        report_only: write tables and figures from the summaries, train and evaluate nothing.
        reproduce: run the recipes again and compare with the committed summaries.

    Raises:
        ConfigError: an unknown recipe in ``only``, or an error of the study.
    """
    config = load_study(path, overrides)
    unknown = [n for n in only if n not in config.recipes]
    if unknown:
        raise ConfigError(
            f"--only {unknown[0]}: no such recipe; choose from {', '.join(config.recipes)}"
        )
    if reproduce:
        reproduce_recipes(config, only)
        return
    for _ in [] if report_only else execute(config, only or list(config.recipes)):
        _report(config)
    if report_only or time_actions(config):
        _report(config)


def _report(config: StudyConfig) -> None:
    with results_lock(config):
        write_report(config)
