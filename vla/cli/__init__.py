"""The ``vla`` command: one module per area, verbs that only call the library.

Heavy imports happen inside the verbs, so that ``vla --help`` is quick.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires

import typer

from vla.cli import data, evaluate, experiments, serve, train, zoo
from vla.errors import TrainingInterrupted

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, evaluate and serve vision-language-action policies. "
    "'vla COMMAND --help' shows the options of a command.",
)
_PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Data": {"pack": data.pack, "doctor": data.doctor, "replay": data.replay},
    "Policies": {
        "train": train.train,
        "eval": evaluate.evaluate,
        "eval-offline": evaluate.evaluate_offline,
        "eval-vqa": evaluate.evaluate_vqa,
        "serve": serve.serve,
    },
    "Components": {"zoo": zoo.zoo},
    "Experiments": {
        "demo": train.demo,
        "scale": experiments.scale,
        "study": experiments.study,
    },
}
for _panel, _verbs in _PANELS.items():
    for _name, _verb in _verbs.items():
        app.command(_name, rich_help_panel=_panel)(_verb)
app.add_typer(data.app, name="data", rich_help_panel="Data")


def main() -> None:
    """Entry point: known errors are reported in one line, without a traceback."""
    try:
        app()
    except TrainingInterrupted as stop:
        typer.echo(f"interrupted: {stop}", err=True)
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        module = (error.name or "vla").split(".")[0]
        if module == "vla":  # a defect of this package, not a missing one
            raise
        advice = _install_command(module)
        typer.echo(f"error: the package {module} is missing; install it: {advice}", err=True)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == 130:  # typer's silent reaction to Ctrl-C
            typer.echo("interrupted", err=True)
        raise


def _install_command(module: str) -> str:
    """``pip install 'vla[serve]'`` if an extra has the package, else its own name."""
    try:
        requirements = requires("vla") or []
    except PackageNotFoundError:  # a checkout that is not installed
        requirements = []
    pattern = re.compile(rf"{re.escape(module).replace('_', '[-_]')}\b.*extra == ['\"](\w+)['\"]")
    extras = [found[1] for r in requirements if (found := pattern.match(r))]
    extras = [extra for extra in extras if extra != "dev"]
    return f"pip install 'vla[{extras[0]}]'" if extras else f"pip install {module}"
